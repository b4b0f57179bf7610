"""Opens a pack with every check, and reads its images with positioned reads."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mp.data.dataset import Statistics
from alexnet_mp.data.jpeg import decode_jpeg
from alexnet_mp.data.manifest import (
    FLOAT64,
    INT64,
    UINT8,
    FileEntry,
    Manifest,
    SplitEntry,
    npy_bytes,
    npy_header,
    read_manifest,
)
from alexnet_mp.errors import ConfigurationError, explained

OPEN_FILES = 256  # of one split; a process may usually have 1,024
_BUFFERS_A_READ = 512  # the kernel takes 1,024 (IOV_MAX)


@dataclass(frozen=True, eq=False)
class Pack:
    """Images of one size in up to three splits, and the training split's mean image and color covariance."""

    folder: Path
    size: int
    class_names: tuple[str, ...]
    statistics: Statistics
    splits: dict[str, "PackSplit"]
    manifest: Manifest = field(repr=False)


def open_pack(folder: Path, verify: bool = True) -> Pack:
    """Open the pack in `folder`.

    The manifest, labels, mean image, and every shard's header and length are checked always; the shards' SHA-256, which
    reads all of the pack, only with `verify`.

    Raises ConfigurationError that names the file that is missing, damaged, or not what the manifest says.
    """
    manifest = read_manifest(folder)
    size, classes = manifest.size, len(manifest.class_names)
    mean = _read_array(folder, manifest.mean_image, FLOAT64, (size, size, 3))
    if not (np.isfinite(mean).all() and mean.min() >= 0 and mean.max() <= 255):
        raise ConfigurationError(f"{folder / manifest.mean_image.file} has values outside of 0..255")
    splits = {name: _open_split(folder, entry, size, classes) for name, entry in manifest.splits.items()}
    if verify:
        shards = [shard for entry in manifest.splits.values() for shard in entry.shards]
        with ThreadPoolExecutor(min(len(shards), os.cpu_count() or 1)) as pool:
            for shard, digest in zip(shards, pool.map(lambda shard: _digest(folder / shard.file), shards), strict=True):
                _compare(folder / shard.file, digest, shard.sha256)
    color = (np.array(part, dtype=np.float64) for part in (manifest.color.eigenvalues, manifest.color.eigenvectors))
    return Pack(folder, size, manifest.class_names, Statistics(mean, *color), splits, manifest)


class PackSplit:
    """The images of a split, numbered in the order in which the pack holds them, and their `labels`, int64 [count].

    Their pixels lie in the shards as they are; `JpegSplit` is the other kind.
    """

    def __init__(self, labels: NDArray[np.int64], shards: Sequence[tuple[Path, int]], size: int) -> None:
        """`shards` are the files in order, with the number of images in each."""
        self.labels = labels
        self.image_shape = (size, size, 3)
        self._paths = [path for path, _ in shards]
        counts = [count for _, count in shards]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._headers = [len(npy_header(UINT8, (count, *self.image_shape))) for count in counts]
        self._image_bytes = 3 * size * size
        self.stored_bytes = len(labels) * self._image_bytes
        # The files that were read last. One that goes is closed when its last reader lets go of it.
        self._opened = lru_cache(OPEN_FILES)(OpenFile)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, rows: NDArray[Any], out: NDArray[np.uint8]) -> None:
        """Read the images `rows` [n], in any order, into `out` uint8 [n, size, size, 3].

        Reads go through each shard once from its beginning, neighbors in one system call, without the interpreter's
        lock; threads may read at the same time. Raises IndexError for a row that is not there, ValueError for an `out`
        of another shape, type or layout, and ConfigurationError that names the shard if it has become shorter.
        """
        if out.shape != (len(rows), *self.image_shape) or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise ValueError(
                f"out is {out.dtype} {out.shape}; it must be uint8 {(len(rows), *self.image_shape)}, contiguous"
            )
        for shard, first, targets in self._runs(rows):
            self._read_images(shard, first, [out[target] for target in targets])

    def _read_images(self, shard: int, first: int, targets: list[NDArray[np.uint8]]) -> None:
        self._read_run(shard, self._extent(shard, first, 0)[0], [target.data for target in targets])

    def forget(self, rows: NDArray[Any]) -> None:
        """Tell the kernel that these images will not be read again soon, so that it drops them before other pages."""
        if not hasattr(os, "posix_fadvise"):
            return
        for shard, first, targets in self._runs(rows):
            file = self._opened(self._paths[shard])
            os.posix_fadvise(file.descriptor, *self._extent(shard, first, len(targets)), os.POSIX_FADV_DONTNEED)

    def _extent(self, shard: int, first: int, count: int) -> tuple[int, int]:
        """Where `count` neighboring images lie in a shard, from the row `first` on: offset and length in bytes."""
        row = first - int(self._starts[shard])
        return self._headers[shard] + row * self._image_bytes, count * self._image_bytes

    def _runs(self, rows: NDArray[Any]) -> Iterator[tuple[int, int, list[int]]]:
        """Neighboring images, as many as one call reads: their shard, the row of the first, their places in `rows`."""
        order = np.argsort(rows, kind="stable")
        ordered = np.asarray(rows, dtype=np.int64)[order]
        if len(ordered) == 0:
            return
        if ordered[0] < 0 or ordered[-1] >= len(self):
            raise IndexError(f"rows {ordered[0]} to {ordered[-1]} of a split of {len(self)} images")
        shards = np.searchsorted(self._starts, ordered, side="right") - 1
        breaks = np.flatnonzero((np.diff(ordered) != 1) | (np.diff(shards) != 0)) + 1
        firsts = [0, *breaks.tolist()]
        places = order.tolist()
        for first, end in zip(firsts, [*firsts[1:], len(places)], strict=True):
            for begin in range(first, end, _BUFFERS_A_READ):
                yield int(shards[begin]), int(ordered[begin]), places[begin : min(end, begin + _BUFFERS_A_READ)]

    def _read_run(self, shard: int, offset: int, buffers: list[memoryview]) -> None:
        wanted = sum(buffer.nbytes for buffer in buffers)
        path = self._paths[shard]
        with explained(f"cannot read {path}"):
            file = self._opened(path)  # held by name, so that it stays open until the read is over
            got = os.preadv(file.descriptor, buffers, offset)
        # A regular file gives less than asked only at its end, or if a single read is limited to 2 GiB.
        if got < wanted and len(buffers) > 1:
            half = len(buffers) // 2
            self._read_run(shard, offset, buffers[:half])
            self._read_run(shard, offset + sum(buffer.nbytes for buffer in buffers[:half]), buffers[half:])
        elif got < wanted:
            raise ConfigurationError(f"{path} has become shorter since the pack was opened: {got} of {wanted} bytes")


class JpegSplit(PackSplit):
    """The images of a split whose shards hold JPEG files, which the thread that reads them decodes."""

    def __init__(
        self, labels: NDArray[np.int64], shards: Sequence[tuple[Path, int]], size: int, lengths: NDArray[np.int64]
    ) -> None:
        """`lengths` int64 [count] are the bytes of every image."""
        super().__init__(labels, shards, size)
        self._lengths, self._ends = lengths, np.concatenate([[0], np.cumsum(lengths)])  # ends within the split
        self.stored_bytes = int(self._ends[-1])

    def _read_images(self, shard: int, first: int, targets: list[NDArray[np.uint8]]) -> None:
        """Raises ConfigurationError also for an image that cannot be decoded."""
        files = [bytearray(length) for length in self._lengths[first : first + len(targets)].tolist()]
        self._read_run(shard, self._extent(shard, first, 0)[0], [memoryview(file) for file in files])
        for row, (target, file) in enumerate(zip(targets, files, strict=True), start=first):
            with explained(f"{self._paths[shard]} is damaged: image {row} of the split", ValueError):
                decode_jpeg(file, target)

    def _extent(self, shard: int, first: int, count: int) -> tuple[int, int]:
        begin, end = self._ends[first], self._ends[first + count]
        return int(begin - self._ends[self._starts[shard]]), int(end - begin)


class OpenFile:
    """A descriptor that lives as long as somebody reads from it."""

    def __init__(self, path: str | Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def _open_split(folder: Path, entry: SplitEntry, size: int, classes: int) -> PackSplit:
    labels = _read_array(folder, entry.labels, INT64, (entry.count,))
    if labels.min() < 0 or labels.max() >= classes:
        raise ConfigurationError(
            f"{folder / entry.labels.file} has labels from {labels.min()} to {labels.max()}; the pack has {classes} "
            "classes, from 0"
        )
    shards = [(folder / shard.file, shard.count) for shard in entry.shards]
    if entry.lengths is None:
        for path, count in shards:
            _check_array(path, UINT8, (count, size, size, 3))
        return PackSplit(labels, shards, size)
    lengths = _read_array(folder, entry.lengths, INT64, (entry.count,))
    if lengths.min() < 1:
        raise ConfigurationError(f"{folder / entry.lengths.file} has a length of {lengths.min()}")
    for (path, _), part in zip(shards, np.split(lengths, np.cumsum([count for _, count in shards])), strict=False):
        _check_length(path, int(part.sum()))
    return JpegSplit(labels, shards, size, lengths)


def _check_array(path: Path, kind: str, shape: tuple[int, ...]) -> None:
    """Raise ConfigurationError if a file is not a `.npy` file of this type and shape, by its header and length."""
    header = npy_header(kind, shape)
    if _check_length(path, npy_bytes(kind, shape), len(header)) != header:
        raise ConfigurationError(
            f"{path} does not begin as a .npy file (format 1.0, C order) of type {kind} and shape {list(shape)}"
        )


def _check_length(path: Path, length: int, first: int = 1) -> bytes:
    """The `first` bytes of a file. Raises ConfigurationError if it is not there, or not of this length."""
    with explained(f"{path} is missing or cannot be read"):
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ConfigurationError(f"{path} is not a file")
        with path.open("rb") as file:
            start = file.read(first)
    if found.st_size != length:
        raise ConfigurationError(f"{path} has {found.st_size:,} bytes; by the manifest it has {length:,}")
    return start


def _read_array(folder: Path, entry: FileEntry, kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
    path = folder / entry.file
    _check_array(path, kind, shape)
    with explained(f"cannot read {path}"):
        content = path.read_bytes()
    _compare(path, hashlib.sha256(content).hexdigest(), entry.sha256)
    data = content[len(npy_header(kind, shape)) :]
    return np.frombuffer(data, dtype=np.dtype(kind)).reshape(shape).astype(np.dtype(kind).newbyteorder("="))


def _digest(path: Path) -> str:
    with explained(f"cannot read {path}"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _compare(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise ConfigurationError(f"{path} is damaged: its SHA-256 is {found}, by the manifest {expected}")
