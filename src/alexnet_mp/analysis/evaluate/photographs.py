"""Photographs classified: files of pictures and a checkpoint become the most probable classes of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet_mp.analysis.evaluate.classification import most_probable
from alexnet_mp.analysis.evaluate.ensemble import (
    checked_weights,
    class_names,
    data_settings,
    describe_checkpoint,
    input_scale,
)
from alexnet_mp.analysis.evaluate.settings import ClassifySettings
from alexnet_mp.data.augmentation import crop_and_flip, evaluation_views
from alexnet_mp.data.dataset import Statistics
from alexnet_mp.data.load import load_data
from alexnet_mp.data.prepare.decode import BadPicture, decode_image, pillow_limits
from alexnet_mp.data.preprocessing import Batch, InputScale, Preprocessing
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.table import Network, parse_network
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.link_test import checked_link
from alexnet_mp.parallel.mesh import open_mesh
from alexnet_mp.parallel.placement import choose_placement

_CLASSES_SHOWN = 5  # of each photograph, as in the paper's Figure 4
_CROPS = 64  # at a time

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Classified:
    """A photograph: its file, what the network was given of it before cropping, and its most probable classes.

    `pixels` uint8 [size, size, 3]; `names` and `probabilities` are as long as each other, the most probable first.
    """

    path: Path
    pixels: Pixels
    names: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class _Trained:
    """What a checkpoint's network needs to be given: which mean, which scale; and what its classes are called."""

    network: Network
    statistics: Statistics
    scale: InputScale
    class_names: tuple[str, ...]


def classify(settings: ClassifySettings) -> list[Classified]:
    """The most probable classes of every photograph, in one process.

    Files are decoded as `launch/prepare.py` decodes those of a pack: the shorter side to the size of the checkpoint's
    data, the center kept. Raises ConfigurationError for a checkpoint that cannot be read or does not say enough, and
    for a file that cannot be decoded.
    """
    launch = Launch.from_environment()
    if launch.world_size > 1:
        raise ConfigurationError(f"classify is one process, not {launch.world_size}: python launch/classify.py")
    folder = Path(settings.checkpoint).absolute()
    description = describe_checkpoint(folder)
    try:
        trained = _trained(description, settings)
    except ConfigurationError as error:
        raise ConfigurationError(f"checkpoint {folder}: {error}") from error
    network, crop = trained.network, trained.network.image[1:]
    size = trained.statistics.mean_image.shape[0]
    with pillow_limits(settings.max_pixels):
        pictures = [_decode(path, size, settings.max_pixels) for path in settings.paths]
    preprocess = Preprocessing(trained.statistics, crop, trained.scale, torch.float32)
    placement = choose_placement("auto", settings.device, network.towers, launch)
    found: list[tuple[list[float], list[int]]] = []
    with open_mesh(placement, timeout_seconds=60) as mesh:
        model = TowerModel(network, placement, checked_link(mesh, network, settings.views), seed=0)
        model.load_state_dict(checked_weights(folder, network, list(placement.devices)))
        for batch in _batches(pictures, crop, settings.views):
            probabilities, classes = most_probable(model, preprocess, batch, _CLASSES_SHOWN)
            if not probabilities.isfinite().all():
                raise ConfigurationError(
                    f"checkpoint {folder} gives logits that are not finite; its weights are not, "
                    f"or input.pixel_divisor={trained.scale.pixel_divisor:g} is not theirs"
                )
            found += zip(probabilities.tolist(), classes.tolist(), strict=True)
    return [
        Classified(path, pixels, tuple(trained.class_names[c] for c in classes), tuple(probabilities))
        for path, pixels, (probabilities, classes) in zip(settings.paths, pictures, found, strict=True)
    ]


def _trained(description: dict[str, Any], settings: ClassifySettings) -> _Trained:
    network = parse_network(description["network"])
    scale = input_scale(description.get("input"), settings.input)
    if network.image[0] != 3:
        raise ConfigurationError(f"network {network.name} reads {network.image[0]} channels; photographs have three")
    names = class_names(description)
    if settings.mean_color is not None:
        side = settings.size
        mean = np.broadcast_to(np.array(settings.mean_color, np.float64), (side, side, 3)).copy()
        statistics = Statistics(mean, np.zeros(3), np.eye(3))
    else:
        # The mean image is all that is needed of the data.
        data = load_data(
            replace(data_settings(description.get("data"), settings.data), verify=False), network.image, network.classes
        )
        statistics, names = data.statistics, names or data.class_names
    if settings.class_names is not None:
        names = _names_in(Path(settings.class_names))
    names = names or tuple(f"class {number}" for number in range(network.classes))
    if len(names) != network.classes:
        raise ConfigurationError(
            f"there are names for {len(names)} classes; network {network.name} has {network.classes}"
        )
    height, width = statistics.mean_image.shape[:2]
    if height != width or height < max(network.image[1:]):
        raise ConfigurationError(
            f"network {network.name} reads {network.image[1]}x{network.image[2]} and its data have {height}x{width}; "
            "choose size=, or other data"
        )
    return _Trained(network, statistics, scale, names)


def _names_in(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"class_names={path} cannot be read: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())


def _decode(path: Path, size: int, max_pixels: int) -> Pixels:
    try:
        return decode_image(path.read_bytes(), size, max_pixels)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror or error}") from error
    except BadPicture as error:
        raise ConfigurationError(f"cannot decode {path}: {error}") from error


def _batches(pictures: Sequence[Pixels], crop: tuple[int, int], views_per_image: int) -> Iterator[Batch]:
    """The pictures' views, as many whole pictures at a time as have _CROPS crops."""
    side = len(pictures[0])
    views = evaluation_views(10 if views_per_image == 10 else 1, (side - crop[0], side - crop[1]))
    at_a_time = max(1, _CROPS // len(views))
    for first in range(0, len(pictures), at_a_time):
        some = [torch.from_numpy(picture.copy()) for picture in pictures[first : first + at_a_time]]
        drawn = views[torch.arange(len(views)).repeat(len(some))]
        pixels = torch.empty((len(drawn), *crop, 3), dtype=torch.uint8)
        crop_and_flip([picture for picture in some for _ in range(len(views))], drawn, pixels)
        yield Batch(pixels, torch.zeros(len(some), dtype=torch.long), drawn)
