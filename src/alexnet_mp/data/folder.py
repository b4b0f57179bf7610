"""Opens a folder of class folders as a data set without a pack: its pictures are decoded as they are read.

Labels, order, pixels and mean image are those of the pack that `launch/prepare.py` makes of the folder by default.
"""

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pooch  # type: ignore[import-untyped]
from numpy.typing import NDArray

from alexnet_mp.data.dataset import DataSet
from alexnet_mp.data.manifest import MANIFEST
from alexnet_mp.data.prepare.decode import BadPicture, decode_image
from alexnet_mp.data.prepare.listing import Picture
from alexnet_mp.data.prepare.prepare import plan_shards, preparation_plan
from alexnet_mp.data.prepare.settings import PreparationSettings
from alexnet_mp.data.prepare.sources.known import list_source
from alexnet_mp.data.statistics_cache import cached_statistics
from alexnet_mp.errors import ConfigurationError, explained

PICTURES_A_TASK = 256


def open_folder(folder: Path, size: int, cache: Path | None) -> DataSet:
    """The pictures under `folder` (train/CLASS/ and validation/ or val/ or test/) as images of `size` pixels a side.

    At the first use every picture is decoded once, which gives the mean image and the colors. Those are kept in `cache`
    (None: `alexnet_mp` in the user's cache folder), and made again if a picture's name, size or time changes.

    Raises ConfigurationError if the folder is not such a one, and one that names them if pictures cannot be decoded.
    """
    if (folder / MANIFEST).exists():
        raise ConfigurationError(f"data.path={folder} is a pack; use data=pack")
    if not folder.is_dir():
        raise ConfigurationError(
            f"data.path={folder} is no folder; data=folder reads train/CLASS/ and val/CLASS/ in one"
        )
    with explained(f"data.path={folder}", ConfigurationError), tempfile.TemporaryDirectory() as scratch:
        listing = list_source(str(folder), "auto", Path(scratch))
    if any(picture.extent.offset for pictures in listing.splits.values() for picture in pictures):
        raise ConfigurationError(
            f"data.path={folder} has its pictures in archives, and data=folder reads files; unpack them, or make a "
            f"pack: python launch/prepare.py source={folder} out=PACK"
        )
    if len(listing.splits) < 2:
        raise ConfigurationError(f"data.path={folder} has no pictures to validate on, in validation/, val/ or test/")
    settings = PreparationSettings(str(folder), out=os.devnull, size=size, images_per_shard=PICTURES_A_TASK)
    plan = {**preparation_plan(listing, settings), "source": None}  # a folder that moves keeps its mean image
    key = hashlib.sha256(json.dumps(plan).encode()).hexdigest()[:32]
    cache = (cache or Path(pooch.os_cache("alexnet_mp"))).expanduser() / f"folder-{key}"
    problem = f"cannot keep the mean image of {folder} in {cache.parent}; data.cache=FOLDER names another place"
    with explained(problem), tempfile.TemporaryDirectory() as scratch:
        tasks = plan_shards(listing, settings, Path(scratch), Path(scratch))
        # All are decoded, to find what is damaged, and those to train on are summed; the pixels themselves go nowhere.
        tasks = [replace(task, file=Path(os.devnull)) for task in tasks]
        statistics = cached_statistics(str(folder), tasks, cache)
    # Pillow warns of damaged EXIF and the like, to whichever thread reads; what a warning cannot say ends the run.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    splits = {
        split: FolderSplit([p for t in tasks if t.split == split for p in t.pictures], size, settings.max_pixels)
        for split in listing.splits
    }
    counts = ", ".join(f"{split} {len(images):,}" for split, images in splits.items())
    return DataSet(
        name=folder.resolve().name,
        description=f"{folder}, decoded as it is read to {size}x{size} in {len(listing.class_names)} classes: {counts}",
        class_names=listing.class_names,
        splits=dict(splits),
        statistics=statistics,
    )


class FolderSplit:
    """The pictures of a split, decoded by the thread that reads them; `labels` int64 [n].

    It holds some hundred bytes a picture: its path, its label and where the path lies among the others.
    """

    def __init__(self, pictures: Sequence[Picture], size: int, max_pixels: int) -> None:
        """Each of `pictures` is a whole file."""
        self.labels = np.array([picture.label for picture in pictures], dtype=np.int64)
        self.image_shape = (size, size, 3)
        self.stored_bytes = sum(picture.extent.length for picture in pictures)
        paths = [os.fsencode(picture.extent.path) for picture in pictures]
        self._paths = b"".join(paths)
        self._ends = np.cumsum([0, *map(len, paths)], dtype=np.int64)
        self._max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, rows: NDArray[Any], out: NDArray[np.uint8]) -> None:
        """Decode the pictures `rows` [n] into `out` uint8 [n, size, size, 3].

        Raises ConfigurationError that names the first that cannot be read or decoded any more.
        """
        for image, row in zip(out, rows.tolist(), strict=True):
            path = Path(os.fsdecode(self._paths[self._ends[row] : self._ends[row + 1]]))
            with explained(f"cannot read {path}"):
                content = path.read_bytes()
            with explained(f"cannot decode {path}", BadPicture):
                image[...] = decode_image(content, self.image_shape[0], self._max_pixels)

    def forget(self, rows: NDArray[Any]) -> None:
        pass  # opening files again only to say so would cost more than it saves
