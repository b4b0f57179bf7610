"""Data sets: splits of numbered images with labels, as the loader takes them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Images(Protocol):
    """The images of one split, numbered from 0; `PackSplit` is another implementation."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """[n], classes counted from 0."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""

    @property
    def stored_bytes(self) -> int:
        """What all of them take where they are stored."""

    def __len__(self) -> int: ...

    def read(self, rows: NDArray[Any], out: NDArray[np.uint8]) -> None:
        """Read the images `rows` [n] into `out` uint8 [n, height, width, channels]; several threads may at once."""

    def forget(self, rows: NDArray[Any]) -> None:
        """Take the hint that these images will not be read again soon."""


@dataclass(frozen=True, eq=False)
class ImagesInMemory:
    """`pixels` uint8 [n, height, width, channels] on the 0..255 scale, `labels` int64 [n]."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        height, width, channels = self.pixels.shape[1:]
        return height, width, channels

    @property
    def stored_bytes(self) -> int:
        return self.pixels.nbytes

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, rows: NDArray[Any], out: NDArray[np.uint8]) -> None:
        np.take(self.pixels, rows, axis=0, out=out)

    def forget(self, rows: NDArray[Any]) -> None:
        pass


@dataclass(frozen=True, eq=False)
class Statistics:
    """Of the training images, on the 0..255 scale: float64 `mean_image` [height, width, channels] (paper §2).

    `eigenvalues` [channels] and `eigenvectors` [channels, channels], in its columns, are those of the covariance of the
    channels over all pixels (paper §4.1).
    """

    mean_image: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]
    eigenvectors: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DataSet:
    """Splits of the same classes; `description` says where they come from, in one line.

    `splits` has `train` and at least one of `validation` and `test`. `class_words` says in words what a class is.
    """

    name: str
    description: str
    class_names: tuple[str, ...]
    splits: dict[str, Images]
    statistics: Statistics
    class_words: Mapping[str, str] = field(default_factory=dict)

    @property
    def names_for_people(self) -> tuple[str, ...]:
        """The classes as `tench`, the first of its words, if the data say any; two of a word as `crane (n02012849)`."""
        words = [self.class_words.get(name, "").split(",")[0].strip() or name for name in self.class_names]
        pairs = zip(words, self.class_names, strict=True)
        return tuple(word if words.count(word) == 1 else f"{word} ({name})" for word, name in pairs)

    @property
    def held_out(self) -> str:
        """The split that a training run is validated on: `validation`, or `test` if there is no other."""
        return "validation" if "validation" in self.splits else "test"

    def fingerprint(self) -> int:
        """56 bits that differ if labels, their order or the mean image differ."""
        digest = hashlib.blake2b(self.statistics.mean_image.tobytes(), digest_size=7)
        for name, images in self.splits.items():
            digest.update(name.encode())
            digest.update(images.labels.tobytes())
        return int.from_bytes(digest.digest(), "big")


@dataclass(frozen=True)
class Share:
    """The part of every global batch that a replica works on: its r-th slice."""

    replica: int = 0
    replicas: int = 1
