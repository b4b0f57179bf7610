"""Types for the list of a source's pictures before any is decoded: the place of each, its label, and the classes."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from alexnet_mp.data.manifest import Skipped

Encoding = Literal["image", "cifar10"]


class Picture(NamedTuple):
    """`length` bytes at `offset` of the file `path`; `modified` is that file's time stamp in nanoseconds."""

    name: str
    label: int
    path: str
    offset: int
    length: int
    modified: int


@dataclass(frozen=True)
class Listing:
    """The pictures of a source by split, and files that are certainly none.

    `encoding` says how a picture's bytes are read: `image` is a file of a known image format, `cifar10` 3,072 bytes,
    channel-major.
    """

    kind: str
    encoding: Encoding
    class_names: tuple[str, ...]
    splits: dict[str, list[Picture]]
    skipped: tuple[Skipped, ...] = ()


def in_order(pictures: list[Picture]) -> list[Picture]:
    """Sorted by label and file name: the same order from a folder and from an archive of the same pictures."""
    return sorted(pictures, key=lambda picture: (picture.label, picture.name.rpartition("/")[2], picture.name))
