"""A pack of random pixels, as large as wanted, to measure the loader on."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mp.data.manifest import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    UINT8,
    Color,
    FileEntry,
    Manifest,
    ShardEntry,
    SplitEntry,
    npy_header,
)
from alexnet_mp.data.prepare.prepare import images_per_shard

RANDOM_CLASSES = 10
_HELD_OUT = 8  # images; a pack without any is refused


def write_pack(folder: Path, images: int, size: int) -> None:
    """A pack of so many training images of random pixels: no compression or sparse file makes them quick to read."""
    rng = np.random.default_rng(images)
    splits = {}
    for split, count in (("train", images), ("validation", _HELD_OUT)):
        (folder / split).mkdir(parents=True)
        most = images_per_shard(count, size)
        starts = range(0, count, most)
        shards = [
            _write_shard(folder, f"{split}/{number:05d}.npy", min(most, count - start), size, rng)
            for number, start in enumerate(starts)
        ]
        labels = rng.integers(0, RANDOM_CLASSES, count, dtype=np.int64)
        splits[split] = SplitEntry(count, _write_array(folder, f"{split}/labels.npy", labels), tuple(shards))
    manifest = Manifest(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        size=size,
        class_names=tuple(f"class{number}" for number in range(RANDOM_CLASSES)),
        splits=splits,
        mean_image=_write_array(folder, "mean_image.npy", np.full((size, size, 3), 127.5)),
        color=Color((3.0, 2.0, 1.0), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))),
        skipped=(),
        settings={},
    )
    (folder / MANIFEST).write_text(manifest.to_json(), "utf-8")


def _write_shard(folder: Path, name: str, count: int, size: int, rng: np.random.Generator) -> ShardEntry:
    header = npy_header(UINT8, (count, size, size, 3))
    digest = hashlib.sha256(header)
    with (folder / name).open("wb") as file:
        file.write(header)
        for _ in range(count):
            pixels = rng.bytes(3 * size * size)
            file.write(pixels)
            digest.update(pixels)
        file.flush()
        os.fsync(file.fileno())  # the kernel drops only pages that are on the disk
    return ShardEntry(name, count, digest.hexdigest())


def _write_array(folder: Path, name: str, array: NDArray[Any]) -> FileEntry:
    np.save(folder / name, array)
    return FileEntry(name, hashlib.sha256((folder / name).read_bytes()).hexdigest())
