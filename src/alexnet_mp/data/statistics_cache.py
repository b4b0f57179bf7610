"""Mean image and colors of a folder's pictures, from one parallel pass over them and kept in a cache."""

import io
import os
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from alexnet_mp.common.disk import FolderLock, write_whole
from alexnet_mp.common.host import usable_cores
from alexnet_mp.data.dataset import Statistics
from alexnet_mp.data.prepare.shards import ShardTask, make_shards
from alexnet_mp.data.prepare.statistics import color, mean_image, no_sums
from alexnet_mp.data.prepare.workspace import read_sums
from alexnet_mp.errors import ConfigurationError

SECONDS_OF_SILENCE = 600.0  # in which the process that decodes has finished no task
_PICTURES_A_WORKER = 256  # for fewer another process is not worth its start
_SECONDS_TO_ESTIMATE = 5.0  # the next comes at six times the seconds
_NAMED = 3  # of the pictures that cannot be decoded


def cached_statistics(name: str, tasks: Sequence[ShardTask], cache: Path) -> Statistics:
    """The statistics of the pictures of `tasks`, found in the folder `cache`, or made and kept there.

    `name` is that of the folder of pictures, for messages. Of several processes one makes them and the others wait, as
    long as it goes on. Raises OSError if the cache cannot be written, and ConfigurationError if the maker has stood
    still for ten minutes, or pictures cannot be decoded: it names them.
    """
    path, size = cache / "statistics.npz", tasks[0].size
    found = _read(path, size)
    if found:
        return found
    with _turn(cache):
        return _read(path, size) or _make(name, tasks, path)


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Make `folder` and hold its lock; wait for a process that holds it as long as it touches it."""
    folder.mkdir(parents=True, exist_ok=True)
    touched, since = 0, time.monotonic()
    while True:
        try:
            lock = FolderLock(folder)
            break
        except BlockingIOError:
            state = folder.stat().st_mtime_ns
            if state != touched:
                touched, since = state, time.monotonic()
            if time.monotonic() - since > SECONDS_OF_SILENCE:
                raise ConfigurationError(
                    f"another process has the lock of {folder} and decoded nothing for {SECONDS_OF_SILENCE:.0f} s; "
                    "end it and start again"
                ) from None
            time.sleep(0.1)
    with lock:
        yield


def _make(name: str, tasks: Sequence[ShardTask], path: Path) -> Statistics:
    total, size = sum(len(task.pictures) for task in tasks), tasks[0].size
    workers = min(usable_cores(), -(-total // _PICTURES_A_WORKER))
    _say(f"decoding the {total:,} pictures of {name} once for their mean image and colors, kept in {path}")
    sums, count, done = no_sums(size, np.uint64), 0, 0
    skipped: list[tuple[str, str]] = []
    began, next_estimate = time.perf_counter(), _SECONDS_TO_ESTIMATE
    for task, result in make_shards(tasks, workers):
        os.utime(path.parent)  # those that wait see that it goes on
        skipped += result.skipped
        done += len(task.pictures)
        if task.sums is not None:
            sums.add(read_sums(task.sums, size), result.products)
            count += result.count
            task.sums.unlink()
        seconds = time.perf_counter() - began
        if seconds > next_estimate and done < total:
            _say(f"{done:,} decoded, {done / seconds:,.0f} images/s; {(total - done) * seconds / done:,.0f} s more")
            next_estimate = 6 * seconds
    if skipped:
        named = "; ".join(f"{picture}: {reason}" for picture, reason in sorted(skipped)[:_NAMED])
        raise ConfigurationError(
            f"{len(skipped)} of the {total:,} pictures of {name} cannot be decoded ({named}); remove them, or train "
            "on a pack, which leaves them out"
        )
    colors, content = color(sums, count), io.BytesIO()
    made = Statistics(mean_image(sums, count), np.array(colors.eigenvalues), np.array(colors.eigenvectors))
    np.savez(content, allow_pickle=False, **vars(made))
    write_whole(path, content.getvalue())
    _say(f"decoded {total:,} pictures in {seconds:,.1f} s, {total / seconds:,.0f} images/s on {workers} cores")
    return made


def _read(path: Path, size: int) -> Statistics | None:
    """What a file of the cache holds; None if there is none, or it is damaged."""
    shapes = {"mean_image": (size, size, 3), "eigenvalues": (3,), "eigenvectors": (3, 3)}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in shapes}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    right = all(found[name].shape == shape and found[name].dtype == np.float64 for name, shape in shapes.items())
    return Statistics(**found) if right else None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
