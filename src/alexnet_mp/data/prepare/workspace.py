"""Keeps the folder of a pack in the making: its lock, its plan, and the record of its finished shards.

Beside the shards lies a folder `.preparation` with the plan, and for every finished shard the sum of its pixels and a
small JSON file, written by rename once the disk holds the shard. The folder goes when the manifest is in place.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mp.common.disk import flush, lock_folder, regular, write_whole
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.data.manifest import FLOAT64, INT64, MANIFEST, UINT8, UINT32, FileEntry, Manifest, npy_bytes, npy_header
from alexnet_mp.data.prepare.shards import ShardResult, ShardTask
from alexnet_mp.errors import ConfigurationError, explained

FOLDER = ".preparation"
_PLAN = "plan.json"
_JPEG_RATIO = 5  # raw pixels to JPEGs of quality 95; at 90 it is some 9 for photographs


class Workspace:
    """A pack's folder, locked by one preparation at a time; use it as a context."""

    def __init__(self, out: Path) -> None:
        """Lock `out`. Raises ConfigurationError if it is a whole pack, has other files, or is being worked on."""
        self.out = out
        self.folder = out / FOLDER
        if (out / MANIFEST).exists():
            raise ConfigurationError(f"out={out} is a whole pack already; nothing was written")
        if out.is_dir() and not self.folder.is_dir() and any(out.iterdir()):
            raise ConfigurationError(f"out={out} has files that are not a pack's; give an empty or a new folder")
        self._made = not out.exists()
        self._lock = lock_folder(self.folder, out, f"another process is preparing out={out} at this moment")

    def __enter__(self) -> "Workspace":
        return self

    def __exit__(self, *_: Any) -> None:
        """Let go of the folder; leave no trace if nothing was planned yet."""
        if self.folder.is_dir() and not (self.folder / _PLAN).exists():
            shutil.rmtree(self.folder)
            if self._made:
                self.out.rmdir()
        self._lock.release()

    def adopt(self, plan: Mapping[str, Any]) -> None:
        """Take up `plan` (plain values), or go on with it if it is begun. Raises ConfigurationError on another."""
        path = self.folder / _PLAN
        if not path.exists():
            write_whole(path, json.dumps(dict(plan), indent=1).encode())
            return
        unreadable = (OSError, ValueError, AttributeError, RecursionError)
        with explained(f"cannot read {path}; remove the folder {self.out}", *unreadable):
            begun = json.loads(regular(path).read_text("utf-8"))
            differing = [key for key in plan if begun.get(key) != plan[key]]
        if differing:
            changes = ", ".join(f"{key} {begun.get(key)!r} -> {plan[key]!r}" for key in differing)
            raise ConfigurationError(
                f"out={self.out} was begun from other pictures or settings ({changes}); go on with those, remove the "
                "folder, or give another"
            )

    def finished(self, task: ShardTask) -> ShardResult | None:
        """What is in the task's shard if that was finished before; None if it must be made."""
        try:
            result = from_mapping(ShardResult, json.loads(self._sidecar(task).read_text("utf-8")), "")
            shard = sum(result.lengths) or npy_bytes(UINT8, (result.count, task.size, task.size, 3))
            whole = task.file.stat().st_size == shard
            if task.sums is not None:
                read_sums(task.sums, task.size)
        except (OSError, ValueError, RecursionError):
            return None
        return result if whole else None

    def seal(self, task: ShardTask, result: ShardResult) -> None:
        """Record a finished shard, once the disk holds it."""
        flush(task.file)
        if task.sums is not None:
            flush(task.sums)
        write_whole(self._sidecar(task), json.dumps(dataclasses.asdict(result)).encode())

    def complete(self, manifest: Manifest) -> None:
        """Write the manifest, which makes the folder a pack, and remove what only the preparation needed."""
        for name in manifest.splits:
            flush(self.out / name)
        write_whole(self.out / MANIFEST, manifest.to_json().encode())
        shutil.rmtree(self.folder)

    def _sidecar(self, task: ShardTask) -> Path:
        return self.folder / f"{task.split}-{task.number:05d}.json"


def read_sums(path: Path, size: int) -> NDArray[np.uint32]:
    """The sum of a shard's pixels. Raises ValueError or OSError if the file is not one."""
    shape = (size, size, 3)
    header = npy_header(UINT32, shape)
    content = path.read_bytes() if path.stat().st_size == npy_bytes(UINT32, shape) else b""
    if not content.startswith(header):
        raise ValueError(f"{path} is not a sum of pixels")
    return np.frombuffer(content, np.dtype(UINT32), offset=len(header)).reshape(shape).astype(np.uint32)


def check_disk(out: Path, tasks: list[ShardTask]) -> None:
    """Raise ConfigurationError if the disk has no room for the shards that are still to be made."""
    size = tasks[0].size if tasks else 1
    needed = npy_bytes(FLOAT64, (size, size, 3))
    for task in tasks:
        images = len(task.pictures)
        pixels = npy_bytes(UINT8, (images, size, size, 3))
        needed += (pixels if task.quality is None else pixels // _JPEG_RATIO) + npy_bytes(INT64, (images,))
        needed += 4 * 3 * size**2 if task.sums is not None else 0
        # Shards of an earlier start that are not finished are written anew, in their place.
        needed -= task.file.stat().st_size if task.file.exists() else 0
    free = shutil.disk_usage(out).free
    if needed > free:
        raise ConfigurationError(
            f"the pack needs {needed:,} bytes ({needed / 1e9:.1f} GB) more and the disk of out={out} has {free:,} "
            f"({free / 1e9:.1f} GB) free"
        )


def write_array(out: Path, name: str, kind: str, array: NDArray[Any]) -> FileEntry:
    """Write an array as a `.npy` file of this type into the pack `out`."""
    content = npy_header(kind, array.shape) + np.ascontiguousarray(array, dtype=np.dtype(kind)).tobytes()
    write_whole(out / name, content)
    return FileEntry(name, hashlib.sha256(content).hexdigest())
