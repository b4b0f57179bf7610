"""Classifies photographs: the most probable classes of each, as values, as bars of text, and as a picture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet_mp.analysis.evaluate.ensemble import EnsembleMember, open_member
from alexnet_mp.analysis.evaluate.settings import ClassifySettings, DataChanges
from alexnet_mp.checkpoint.names import find_checkpoint
from alexnet_mp.common.disk import regular, write_files
from alexnet_mp.common.letters import drawable_names
from alexnet_mp.common.text import printable, short_name
from alexnet_mp.data.augmentation import ViewCount, crop_and_flip, evaluation_views
from alexnet_mp.data.dataset import Statistics
from alexnet_mp.data.prepare.decode import BadPicture, decode_image, pillow_limits
from alexnet_mp.data.preprocessing import Batch, Preprocessing
from alexnet_mp.errors import ConfigurationError, explained
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.link_test import checked_link
from alexnet_mp.parallel.mesh import Mesh, open_mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.training.validation import log_probabilities

_CLASSES_SHOWN = 5  # of each photograph, as in the paper's Figure 4
_CROPS = 64  # at a time
_WIDTH = 30  # characters of a bar that stands for 1
_ROW = 1.6  # inches

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Classified:
    """A photograph: its file, what the network was given of it before cropping, and its most probable classes.

    `pixels` uint8 [size, size, 3]; `names` and `probabilities` are as long as each other, the most probable first.
    `drawn` are the names as a chart can show them.
    """

    path: Path
    pixels: Pixels
    names: tuple[str, ...]
    probabilities: tuple[float, ...]
    drawn: tuple[str, ...] = ()


def classify(settings: ClassifySettings) -> list[Classified]:
    """The most probable classes of every photograph, in one process.

    Files are decoded as `launch/prepare.py` decodes those of a pack: the shorter side to the size of the checkpoint's
    data, the center kept. Raises ConfigurationError for a checkpoint that cannot be read or does not say enough, and
    for a file that cannot be decoded.
    """
    # A color takes the place of the data's mean image; the checkpoint need not say then what it was trained on.
    changes = settings.data if settings.mean_color is None else DataChanges(source="digits")
    member = open_member(find_checkpoint(settings.checkpoint), changes, settings.input)
    with explained(f"checkpoint {member.folder}", ConfigurationError):
        mean, names = _mean_and_names(member, settings)
    network, crop = member.network, member.network.image[1:]
    pictures = []
    with pillow_limits(settings.max_pixels):
        for path in settings.paths:
            with explained(f"cannot read {path}"), explained(f"cannot decode {path}", BadPicture):
                pictures.append(decode_image(regular(path).read_bytes(), len(mean), settings.max_pixels))
    statistics = Statistics(mean, np.zeros(3), np.eye(3))  # no color noise
    preprocess = Preprocessing(statistics, crop, member.input, torch.float32)
    placement = choose_placement("auto", settings.device, network.towers, Launch())
    found: list[tuple[list[float], list[int]]] = []
    with open_mesh(placement, timeout_seconds=60) as mesh:
        model = TowerModel(network, placement, checked_link(mesh, network, settings.views), seed=0)
        model.load_state_dict(member.weights(list(placement.devices)))
        for batch in _batches(pictures, crop, settings.views):
            probabilities, classes = most_probable(model, preprocess, batch, _CLASSES_SHOWN)
            if not probabilities.isfinite().all():
                raise ConfigurationError(
                    f"checkpoint {member.folder} gives logits that are not finite; its weights are not, "
                    f"or input.pixel_divisor={member.input.pixel_divisor:g} is not theirs"
                )
            found += zip(probabilities.tolist(), classes.tolist(), strict=True)
    drawn = names if settings.out is None else drawable_names(names)
    return [
        Classified(path, pixels, tuple(names[c] for c in classes), tuple(likely), tuple(drawn[c] for c in classes))
        for path, pixels, (likely, classes) in zip(settings.paths, pictures, found, strict=True)
    ]


def _mean_and_names(member: EnsembleMember, settings: ClassifySettings) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """What to subtract from a photograph, [size, size, 3], and what the classes are called."""
    network, names = member.network, member.class_names
    if network.image[0] != 3:
        raise ConfigurationError(f"network {network.name} reads {network.image[0]} channels; photographs have three")
    known = member.run_input if settings.mean_color is None and member.says_data else None
    if settings.mean_color is not None:
        mean = np.full((settings.size, settings.size, 3), settings.mean_color, np.float64)
    elif known is not None:
        mean = known.mean_image
        names = known.names_for_people
    else:
        data = member.load_data(verify=False)  # the mean image is all that is needed of them
        mean = data.statistics.mean_image
        names = data.names_for_people if names in ((), data.class_names) else names
    if settings.class_names is not None:
        what = f"class_names={settings.class_names}"
        with explained(f"{what} cannot be read"), explained(f"{what} is no text in UTF-8", UnicodeDecodeError):
            lines = regular(Path(settings.class_names)).read_text(encoding="utf-8-sig").splitlines()
        names = tuple(line.strip() for line in lines if line.strip())
    names = names or tuple(f"class {number}" for number in range(network.classes))
    if len(names) != network.classes:
        raise ConfigurationError(
            f"there are names for {len(names)} classes; network {network.name} has {network.classes}"
        )
    height, width = mean.shape[:2]
    if height != width or height < max(network.image[1:]):
        raise ConfigurationError(
            f"network {network.name} reads {network.image[1]}x{network.image[2]} and its data have {height}x{width}; "
            "choose size=, or other data"
        )
    return mean, names


def _batches(pictures: Sequence[Pixels], crop: tuple[int, int], views_per_image: ViewCount) -> Iterator[Batch]:
    """The pictures' views, as many whole pictures at a time as have _CROPS crops."""
    side = len(pictures[0])
    views = evaluation_views(views_per_image, (side - crop[0], side - crop[1]))
    at_a_time = max(1, _CROPS // len(views))
    for first in range(0, len(pictures), at_a_time):
        some = [torch.from_numpy(picture.copy()) for picture in pictures[first : first + at_a_time]]
        drawn = views[torch.arange(len(views)).repeat(len(some))]
        pixels = torch.empty((len(drawn), *crop, 3), dtype=torch.uint8)
        crop_and_flip([picture for picture in some for _ in range(len(views))], drawn, pixels)
        yield Batch(pixels, torch.zeros(len(some), dtype=torch.long), drawn)


@torch.no_grad()
def most_probable(model: TowerModel, preprocess: Preprocessing, batch: Batch, k: int = 5) -> tuple[Tensor, Tensor]:
    """The `k` most probable classes of each of the batch's n images: (probabilities [n, k], classes [n, k]).

    Probabilities are float64, the most probable class first, of equal ones in the order of the classes; they add up to
    1 over all classes. Where an image has several views, what the softmax gives is averaged over them (paper §4.1). A
    network of fewer than `k` classes has as many columns as classes. Both lie on the CPU; the model, in evaluation mode
    meanwhile, is left in the mode in which it was. Labels are not looked at.

    Every process that holds a tower of the model calls it, with the same batch.
    """
    was_training = model.training
    model.eval()
    scores = log_probabilities([model], batch, preprocess, Mesh(model.placement, None))
    model.train(was_training)
    ordered, classes = scores.sort(dim=1, descending=True, stable=True)
    return ordered[:, :k].exp(), classes[:, :k]


def bars_of_text(found: Sequence[Classified]) -> str:
    """Each photograph's name, and its classes with a bar and a percentage each."""
    lines = []
    for photograph in found:
        lines.append(printable(str(photograph.path)))
        names = [short_name(name) for name in photograph.names]
        for name, probability in zip(names, photograph.probabilities, strict=True):
            bar = "█" * round(_WIDTH * probability)
            lines.append(f"  {name:<{max(map(len, names))}}  {bar:<{_WIDTH}} {100 * probability:5.1f} %")
    return "\n".join(lines)


def draw_photographs(found: Sequence[Classified], out: Path) -> None:
    """Draw each photograph, as the network was given it, and its classes as bars, as a PNG."""
    from alexnet_mp.analysis.evaluate.pictures import draw_bars, draw_image  # matplotlib: slow to import
    from alexnet_mp.common.drawing import drawing

    def draw(picture: Path) -> None:
        with drawing(picture, 4.2 * _ROW, _ROW * len(found)) as figure:
            grid = figure.subplots(len(found), 2, squeeze=False, width_ratios=[1, 2.6])
            for (left, right), photograph in zip(grid, found, strict=True):
                draw_image(left, photograph.pixels, photograph.path.name)
                draw_bars(right, photograph.drawn, photograph.probabilities)

    with explained(f"cannot write out={out}"):
        write_files(out.parent, {out.name: draw})
