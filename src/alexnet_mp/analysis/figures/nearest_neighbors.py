"""Finds the training images nearest to test images by the last hidden layer, and draws both: the paper's Figure 4."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from alexnet_mp.analysis.evaluate.classification import most_probable
from alexnet_mp.analysis.evaluate.ensemble import EnsembleMember
from alexnet_mp.analysis.evaluate.evaluate import with_progress_bar
from alexnet_mp.analysis.evaluate.pictures import draw_bars, draw_image
from alexnet_mp.analysis.figures.settings import PlotSettings
from alexnet_mp.common.drawing import drawing
from alexnet_mp.common.letters import drawable_names
from alexnet_mp.common.rng import keyed_generator
from alexnet_mp.common.schema import choice
from alexnet_mp.data.augmentation import crop_and_flip, evaluation_views
from alexnet_mp.data.dataset import Images, Share
from alexnet_mp.data.loader import Loader
from alexnet_mp.data.preprocessing import Batch, Preprocessing
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.build import build_model
from alexnet_mp.model.features import features
from alexnet_mp.model.tower_model import TowerModel

_CLASSES_SHOWN = 5
_BATCH = 128
_SIDE, _BARS, _ABOVE = 0.85, 1.8, 0.25  # inches: of an image, of the bars' width, and for a name above an image


@dataclass(frozen=True, eq=False)
class Neighbor:
    """A training image: its number, its label, and how far its features are from those of the image it is near to."""

    image: int
    label: str
    distance: float
    pixels: Tensor


@dataclass(frozen=True, eq=False)
class QueryImage:
    """An image of the split, number `image`: `pixels` uint8 [height, width, channels], as the network is shown it.

    `classes` are the most probable ones, the first first.
    """

    image: int
    label: str
    pixels: Tensor
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    neighbors: tuple[Neighbor, ...]

    @property
    def right(self) -> int | None:
        """The place of the right class among `classes`; a data set has each name once."""
        return self.classes.index(self.label) if self.label in self.classes else None


@dataclass(frozen=True, eq=False)
class NearestNeighbors:
    """The images of a split with their neighbors, which were sought among the first `searched` training images."""

    class_names: tuple[str, ...]
    split: str
    searched: int
    examples: tuple[QueryImage, ...]

    @property
    def with_the_same_label(self) -> tuple[int, int]:
        """How many neighbors have the label of the image that they are near to, and how many there are."""
        pairs = [near.label == each.label for each in self.examples for near in each.neighbors]
        return sum(pairs), len(pairs)


def find_nearest_neighbors(member: EnsembleMember, settings: PlotSettings) -> NearestNeighbors:
    """Load a checkpoint's model and data, all towers on one device, and find what the settings ask for.

    `images` are those of the `split`, by number, or `examples` drawn by `seed`. `neighbors` of each are sought among
    all training images, or the first `among`.

    Memory is bounded by a batch, whatever the number of training images. Raises ConfigurationError if data or
    checkpoint cannot be read or do not fit each other, and for images that the split does not have.
    """
    network = member.network
    data = member.load_data()
    member.check_classes(data)
    split = data.held_out if settings.split is None else choice(settings.split, data.splits, "split")
    rows = _rows(settings, len(data.splits[split]), split)
    model = build_model(network, device=settings.device)
    model.load_state_dict(member.weights(range(network.towers)))
    preprocess = Preprocessing(data.statistics, network.image[1:], member.input, torch.float32)
    batch = center_views(data.splits[split], rows, network.image[1:])
    probabilities, classes = most_probable(model, preprocess, batch, _CLASSES_SHOWN)
    searched = min(settings.among or len(data.splits["train"]), len(data.splits["train"]))
    loader = Loader(data, network.image[1:], min(_BATCH, len(data.splits["train"])), Share(), seed=0)
    distances, places = nearest(
        last_hidden_features(model, preprocess, batch),
        with_progress_bar(loader.evaluation("train", rows=torch.arange(searched)), searched),
        lambda batch: last_hidden_features(model, preprocess, batch),
        min(settings.neighbors, searched),
    )
    names, train = data.names_for_people, data.splits["train"]
    found = []
    for n, row in enumerate(rows.tolist()):
        near = center_views(train, places[n], network.image[1:])
        each = zip(places[n].tolist(), near.labels.tolist(), distances[n].tolist(), near.pixels, strict=True)
        neighbors = tuple(Neighbor(image, names[label], distance, pixels) for image, label, distance, pixels in each)
        label, likely = names[int(batch.labels[n])], tuple(names[label] for label in classes[n].tolist())
        found.append(QueryImage(row, label, batch.pixels[n], likely, tuple(probabilities[n].tolist()), neighbors))
    return NearestNeighbors(names, split, searched, tuple(found))


@torch.no_grad()
def last_hidden_features(model: TowerModel, preprocess: Preprocessing, batch: Batch) -> Tensor:
    """The input of the classifier, [n, units of all towers] in tower order, in evaluation mode, on the CPU.

    Of the paper's network these are the 4096 of fc7 (paper §6), which dropout that is not inverted has halved: all of
    them alike, so the nearest are the same. `batch` has one view of each image.
    """
    (images,) = preprocess.on_each(batch, list(model.placement.devices.values())[:1])
    before = list(model.network.without_auxiliaries().rows)[:-1]  # the classifier is the last, by the table's check
    if not before:
        return images.flatten(1).cpu()
    return features(model, images, before[-1:])[before[-1]].flatten(1).cpu()


def nearest(
    queries: Tensor, batches: Iterable[Batch], features: Callable[[Batch], Tensor], count: int
) -> tuple[Tensor, Tensor]:
    """The `count` images of `batches` nearest to each query [q, d] by the Euclidean distance of their `features`.

    (distances [q, count], places [q, count]), the nearest first, of equal ones the earlier; places count images from 0
    in the order in which they come. Only one batch's features are held at a time.
    """
    best = torch.empty(len(queries), 0, dtype=queries.dtype)
    places = torch.empty(len(queries), 0, dtype=torch.int64)
    start = 0
    for batch in batches:
        found = features(batch)
        # By differences: the expansion into a product loses what tells near neighbors apart.
        distances = torch.cdist(queries, found, compute_mode="donot_use_mm_for_euclid_dist")
        here = torch.arange(start, start + len(found)).expand(len(queries), -1)
        start += len(found)
        best, order = torch.cat([best, distances], dim=1).sort(dim=1, stable=True)
        places = torch.cat([places, here], dim=1).gather(1, order)[:, :count]
        best = best[:, :count]
    return best, places


def center_views(images: Images, rows: Tensor, crop: tuple[int, int]) -> Batch:
    """The images `rows` [n] of a split, in any order, cropped in the center as in evaluation."""
    height, width, channels = images.image_shape
    whole = torch.empty(len(rows), height, width, channels, dtype=torch.uint8)
    images.read(rows.numpy(), whole.numpy())
    views = evaluation_views(1, (height - crop[0], width - crop[1]))[torch.zeros(len(rows), dtype=torch.int64)]
    pixels = torch.empty(len(rows), *crop, channels, dtype=torch.uint8)
    crop_and_flip(list(whole), views, pixels)
    return Batch(pixels, torch.from_numpy(images.labels[rows.numpy()]), views)


def _rows(settings: PlotSettings, available: int, split: str) -> Tensor:
    if settings.images is None:
        order = torch.randperm(available, generator=keyed_generator(settings.seed, "examples", split))
        return order[: settings.examples].sort().values
    outside = [image for image in settings.images if not 0 <= image < available]
    if outside:
        raise ConfigurationError(f"images={outside}: {split} has images 0 to {available - 1}")
    return torch.tensor(settings.images)


def neighbor_values(found: NearestNeighbors) -> dict[str, object]:
    """What was found, as plain values."""

    def values(image: QueryImage | Neighbor) -> dict[str, object]:
        return {key: value for key, value in vars(image).items() if key != "pixels"}

    return {
        "split": found.split,
        "training_images_searched": found.searched,
        "examples": [
            {**values(each), "neighbors": [values(near) for near in each.neighbors]} for each in found.examples
        ],
    }


def draw_nearest_neighbors(found: NearestNeighbors, picture: Path, title: str) -> None:
    """Draw one row an example as a PNG, with its label above the image and the nearest training images at the right."""
    near = max(len(each.neighbors) for each in found.examples)
    widths = [_SIDE, _BARS, *near * [_SIDE]]
    words = [found.split, "most probable classes"]
    words += [f"nearest of {found.searched:,} training images, by the last hidden layer's features"] if near else []
    drawn = dict(zip(found.class_names, drawable_names(found.class_names), strict=True))
    height = 0.6 + (_SIDE + _ABOVE) * len(found.examples)
    with drawing(picture, sum(widths) + 0.1 * len(widths), height, title) as figure:
        grid = figure.subplots(len(found.examples), len(widths), squeeze=False, width_ratios=widths)
        for (image, bars, *others), example in zip(grid, found.examples, strict=True):
            draw_image(image, example.pixels.numpy(), drawn[example.label], "bold")
            draw_bars(bars, [drawn[name] for name in example.classes], example.probabilities, example.right)
            for axes, neighbor in zip(others, example.neighbors, strict=True):
                weight = "bold" if neighbor.label == example.label else "normal"
                draw_image(axes, neighbor.pixels.numpy(), drawn[neighbor.label], weight)
        for axes, heading in zip(grid[0], words, strict=False):
            at = axes.annotate(heading, (0, 1), xytext=(0, 18), xycoords="axes fraction", textcoords="offset points")
            at.set_in_layout(heading is words[0])  # the others may reach over several columns
