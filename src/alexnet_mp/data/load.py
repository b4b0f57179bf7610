"""Opens the data set that the settings under `data` name, and checks that it fits the network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from torch.nn import functional as F

from alexnet_mp.common.schema import Bound
from alexnet_mp.data.dataset import DataSet, ImagesInMemory, Statistics
from alexnet_mp.data.manifest import LARGEST_SIZE
from alexnet_mp.data.pack import open_pack
from alexnet_mp.errors import ConfigurationError

ImageShape = tuple[int, int, int]

VALIDATION_IMAGES = 360  # a fifth of the digits


@dataclass(frozen=True)
class DataSettings:
    """Which images: `digits`, scikit-learn's, the `pack` in the folder `path`, or the pictures in that `folder`.

    With `verify`, a pack's shards are read whole and checked against their SHA-256 before the start; their headers and
    lengths are always checked. Pictures of a `folder` become images of `size` pixels a side, and their mean image is
    kept in the folder `cache`; null: the user's own.
    """

    source: Literal["digits", "pack", "folder"]
    path: str | None = None
    verify: bool = True
    size: Annotated[int, Bound(f"be from 1 to {LARGEST_SIZE}", lambda size: 1 <= size <= LARGEST_SIZE)] = 256
    cache: str | None = None


def load_data(settings: DataSettings, image: ImageShape, classes: int | None) -> DataSet:
    """The data set for a network whose image is (channels, height, width), with `classes` or, if None, any number.

    Raises ConfigurationError if it cannot be read, is damaged, or does not fit the network.
    """
    if settings.source == "digits" and settings.path is not None:
        raise ConfigurationError(f"data.path is {settings.path!r}, but data.source=digits has none; use data=pack")
    data = digits(image) if settings.source == "digits" else open_data(settings)
    if classes is not None and len(data.class_names) != classes:
        raise ConfigurationError(
            f"the network has {classes} classes and {data.name} has {len(data.class_names)}; "
            f"use network.classes={len(data.class_names)}"
        )
    channels = data.splits["train"].image_shape[2]
    if channels != image[0]:
        raise ConfigurationError(f"the network reads {image[0]} channels and the images of {data.name} have {channels}")
    return data


def digits(image: ImageShape) -> DataSet:
    """The quickstart's data: scikit-learn's embedded digits, 1,797 scans of handwritten digits, 8x8, 16 gray levels.

    They are enlarged to `image` = (channels, height, width), gray repeated over the channels.

    The split is fixed, by class: 1,437 to train on, 360 to validate on. Values 0..16 become 0..255.
    """
    from sklearn.datasets import load_digits  # slow to import, and other sources do not need it
    from sklearn.model_selection import train_test_split

    channels, height, width = image
    scans = load_digits()
    gray = torch.from_numpy(scans.images).unsqueeze(1) * (255 / 16)  # [1797, 1, 8, 8]
    enlarged = F.interpolate(gray, (height, width), mode="bilinear", align_corners=False)
    pixels = enlarged.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).expand(-1, -1, -1, channels).numpy()
    labels = scans.target.astype(np.int64)
    train, validation = train_test_split(
        range(len(labels)), test_size=VALIDATION_IMAGES, random_state=0, stratify=scans.target
    )
    # The channels are equal, so their covariance has one eigenvector, gray, that is not nothing.
    eigenvalues, eigenvectors = np.linalg.eigh(np.full((channels, channels), pixels[train, ..., 0].var()))
    return DataSet(
        name="digits",
        description=f"scikit-learn's {len(labels):,} scanned digits, enlarged to {height}x{width}: "
        f"{len(train):,} to train, {len(validation)} to validate",
        class_names=tuple(str(name) for name in scans.target_names),
        splits={
            "train": ImagesInMemory(pixels[train], labels[train]),
            "validation": ImagesInMemory(pixels[validation], labels[validation]),
        },
        statistics=Statistics(
            mean_image=pixels[train].mean(axis=0, dtype=np.float64),
            eigenvalues=np.maximum(eigenvalues[::-1], 0),
            eigenvectors=eigenvectors[:, ::-1].copy(),
        ),
    )


def open_data(settings: DataSettings) -> DataSet:
    """The pack or the folder of pictures at `settings.path`, for any network; raises as `load_data` does."""
    if settings.path is None:
        what = {"pack": "that launch/prepare.py wrote", "folder": "with train/ and validation/ or test/"}
        raise ConfigurationError(f"data.source={settings.source} needs data.path, the folder {what[settings.source]}")
    if settings.source == "folder":
        from alexnet_mp.data.folder import open_folder  # it imports all of the preparation

        return open_folder(Path(settings.path), settings.size, Path(settings.cache) if settings.cache else None)
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
        statistics=pack.statistics,
        class_words=pack.manifest.class_words,
    )
