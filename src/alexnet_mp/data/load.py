"""Opens the data set that the settings under `data` name, and checks that it fits the network."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alexnet_mp.data.dataset import DataSet, Statistics
from alexnet_mp.data.digits import digits
from alexnet_mp.data.pack import open_pack
from alexnet_mp.errors import ConfigurationError

ImageShape = tuple[int, int, int]


@dataclass(frozen=True)
class DataSettings:
    """Which images: `digits`, scikit-learn's, or the `pack` in the folder `path`.

    With `verify`, a pack's shards are read whole and checked against their SHA-256 before the start; their headers and
    lengths are always checked.
    """

    source: Literal["digits", "pack"]
    path: str | None = None
    verify: bool = True


def load_data(settings: DataSettings, image: ImageShape, classes: int) -> DataSet:
    """The data set for a network whose image is (channels, height, width).

    Raises ConfigurationError if it cannot be read, is damaged, or does not fit the network.
    """
    data = _SOURCES[settings.source](settings, image)
    if len(data.class_names) != classes:
        raise ConfigurationError(
            f"the network has {classes} classes and {data.name} has {len(data.class_names)}; "
            f"use network.classes={len(data.class_names)}"
        )
    channels = data.splits["train"].image_shape[2]
    if channels != image[0]:
        raise ConfigurationError(f"the network reads {image[0]} channels and the images of {data.name} have {channels}")
    return data


def _digits(settings: DataSettings, image: ImageShape) -> DataSet:
    if settings.path is not None:
        raise ConfigurationError(f"data.path is {settings.path!r}, but data.source=digits has none; use data=pack")
    return digits(image)


def _pack(settings: DataSettings, image: ImageShape) -> DataSet:
    if settings.path is None:
        raise ConfigurationError("data.source=pack needs data.path, the folder that launch/prepare.py wrote")
    pack = open_pack(Path(settings.path), settings.verify)
    if len(pack.splits) < 2:
        raise ConfigurationError(
            f"{pack.folder} has no images to validate on; prepare it from a source with val/ or test/"
        )
    counts = ", ".join(f"{split} {len(images):,}" for split, images in pack.splits.items())
    return DataSet(
        name=pack.folder.name,
        description=f"{pack.folder}, images of {pack.size}x{pack.size} in {len(pack.class_names)} classes: {counts}",
        class_names=pack.class_names,
        splits=dict(pack.splits),
        statistics=Statistics(pack.mean_image(), pack.eigenvalues, pack.eigenvectors),
    )


_SOURCES: dict[str, Callable[[DataSettings, ImageShape], DataSet]] = {"digits": _digits, "pack": _pack}
