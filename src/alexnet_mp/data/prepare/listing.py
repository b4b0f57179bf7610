"""Types for the list of a source's pictures before any is decoded: the place of each, its label, and the classes."""

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from alexnet_mp.data.manifest import Skipped
from alexnet_mp.errors import ConfigurationError

Encoding = Literal["image", "cifar10"]

SPLIT_NAMES = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
IMAGE_SUFFIXES = ("jpeg", "jpg", "png", "bmp", "gif", "webp", "tif", "tiff", "ppm", "avif")


class Extent(NamedTuple):
    """`length` bytes at `offset` of the file `path`; `modified` is that file's time stamp in nanoseconds.

    They are deflated, as in a zip file, if `inflated` says how many bytes they become; 0 means that they are not.
    """

    path: str
    offset: int
    length: int
    modified: int
    inflated: int = 0


class Picture(NamedTuple):
    """The file of a picture, and the number of its class."""

    name: str
    label: int
    extent: Extent


@dataclass(frozen=True)
class Listing:
    """The pictures of a source by split, and files that are certainly none.

    `encoding` says how a picture's bytes are read: `image` is a file of a known image format, `cifar10` 3,072 bytes,
    channel-major. `class_words` says in words what a class is, as far as the source does. `left_out` has a sentence for
    every part of the source that is in no split.
    """

    kind: str
    encoding: Encoding
    class_names: tuple[str, ...]
    splits: dict[str, list[Picture]]
    skipped: tuple[Skipped, ...] = ()
    class_words: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def in_order(pictures: list[Picture]) -> list[Picture]:
    """Sorted by label and file name: the same order from a folder and from an archive of the same pictures."""
    return sorted(pictures, key=lambda picture: (picture.label, picture.name.rpartition("/")[2], picture.name))


def inflate(content: bytes, length: int) -> bytes:
    """What was deflated into `content`. Raises ValueError if that is damaged, or not of this length."""
    try:
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, length + 1)
    except zlib.error as error:
        raise ValueError(f"damaged: {error}") from error
    if len(inflated) != length:
        raise ValueError(f"damaged: it does not inflate to {length:,} bytes")
    return inflated


def check_leads_inside(name: str, path: object) -> None:
    """Raise ConfigurationError if the name of an archive's member is absolute or has `..`."""
    if name.startswith("/") or ".." in name.split("/"):
        raise ConfigurationError(f"{path}: member {name!r} has a name that leads out of the archive; refused")


def some(names: Collection[str]) -> str:
    """The first three of many names, and how many there are if there are more."""
    return ", ".join(sorted(names)[:3]) + (f" ... ({len(names):,})" if len(names) > 3 else "")
