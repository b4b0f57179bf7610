"""Mean image and colors of a folder's pictures, from one parallel pass over them and kept in a cache."""

import hashlib
import io
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL

from alexnet_mp.common.disk import FolderLock, write_whole
from alexnet_mp.common.host import usable_cores
from alexnet_mp.data.dataset import Statistics
from alexnet_mp.data.prepare.decode import RULE
from alexnet_mp.data.prepare.listing import Listing
from alexnet_mp.data.prepare.prepare import digest_of_pictures
from alexnet_mp.data.prepare.settings import PreparationSettings
from alexnet_mp.data.prepare.shards import ShardTask, make_shards
from alexnet_mp.data.prepare.statistics import Sums, color, mean_image, no_sums
from alexnet_mp.data.prepare.workspace import read_sums
from alexnet_mp.errors import ConfigurationError, explained

PICTURES_A_TASK = 256
SECONDS_OF_SILENCE = 600.0  # in which the process that decodes has finished no task
_SECONDS_TO_ESTIMATE, _SECONDS_BETWEEN_ESTIMATES = 5.0, 60.0
_NAMED = 3  # of the pictures that cannot be decoded


@dataclass(frozen=True, eq=False)
class KeptStatistics:
    """What the cache holds of a folder; `images_per_second` is how many pictures one core decoded."""

    statistics: Statistics
    images_per_second: float


def cached_statistics(listing: Listing, folder: Path, settings: PreparationSettings, cache: Path) -> KeptStatistics:
    """The statistics of the pictures in `listing`, found in `cache`, or made and kept there.

    Of several processes one makes them and the others wait, as long as it goes on. Raises ConfigurationError if the
    cache cannot be written, the maker has stood still for ten minutes, or pictures cannot be decoded: it names them.
    """
    about = f"{RULE}\n{PIL.__version__}\n{settings.size}\n{settings.max_pixels}\n{digest_of_pictures(listing)}"
    path = cache.expanduser() / f"folder-{hashlib.sha256(about.encode()).hexdigest()[:32]}" / "statistics.npz"
    found = _read(path, settings.size)
    if found:
        return found
    with (
        explained(f"cannot keep the mean image of {folder} in {cache}; data.cache=FOLDER names another place"),
        _turn(path.parent),
    ):
        return _read(path, settings.size) or _make(listing, folder, settings, path)


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


def _make(listing: Listing, folder: Path, settings: PreparationSettings, path: Path) -> KeptStatistics:
    total = sum(len(pictures) for pictures in listing.splits.values())
    _say(f"decoding the {total:,} pictures of {folder} once for their mean image and colors, kept in {path}")
    with tempfile.TemporaryDirectory() as scratch:
        tasks = _tasks(listing, settings, Path(scratch))
        workers = min(usable_cores(), len(tasks))
        began = time.perf_counter()
        sums, count, skipped = _summed(tasks, workers, settings.size, path.parent)
        seconds = time.perf_counter() - began
    if skipped:
        named = "; ".join(f"{name}: {reason}" for name, reason in sorted(skipped)[:_NAMED])
        raise ConfigurationError(
            f"{len(skipped)} of the {total:,} pictures of {folder} cannot be decoded ({named}); remove them, or train "
            "on a pack, which leaves them out"
        )
    colors = color(sums, count)
    statistics = Statistics(mean_image(sums, count), np.array(colors.eigenvalues), np.array(colors.eigenvectors))
    kept = KeptStatistics(statistics, total / seconds / workers)
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, images_per_second=kept.images_per_second, **vars(statistics))
    write_whole(path, content.getvalue())
    _say(f"decoded {total:,} pictures in {seconds:,.1f} s, {total / seconds:,.0f}/s in {workers} processes")
    return kept


def _summed(tasks: list[ShardTask], workers: int, size: int, lock: Path) -> tuple[Sums, int, list[tuple[str, str]]]:
    """The sums of the training pictures and their number, and which of all pictures cannot be decoded, and why."""
    sums, count, done = no_sums(size, np.uint64), 0, 0
    total = sum(len(task.pictures) for task in tasks)
    skipped: list[tuple[str, str]] = []
    began = time.perf_counter()
    next_estimate = _SECONDS_TO_ESTIMATE
    for task, result in make_shards(tasks, workers):
        os.utime(lock)  # those that wait see that it goes on
        skipped += result.skipped
        done += len(task.pictures)
        if task.sums is not None:
            sums.add(read_sums(task.sums, size), result.products)
            count += result.count
            task.sums.unlink()
        seconds = time.perf_counter() - began
        if seconds > next_estimate and done < total:
            _say(f"{done:,} decoded, {done / seconds:,.0f} a second; {(total - done) * seconds / done:,.0f} s more")
            next_estimate = seconds + _SECONDS_BETWEEN_ESTIMATES
    return sums, count, skipped


def _tasks(listing: Listing, settings: PreparationSettings, scratch: Path) -> list[ShardTask]:
    """Shards whose pixels go nowhere. All splits are decoded, to find what is damaged; the training split is summed."""
    return [
        ShardTask(
            split=split,
            number=number,
            file=Path(os.devnull),
            sums=scratch / f"{number:07d}.npy" if split == "train" else None,
            pictures=tuple(pictures[number : number + PICTURES_A_TASK]),
            encoding=listing.encoding,
            size=settings.size,
            max_pixels=settings.max_pixels,
            strict=False,
        )
        for split, pictures in listing.splits.items()
        for number in range(0, len(pictures), PICTURES_A_TASK)
    ]


def _read(path: Path, size: int) -> KeptStatistics | None:
    """What a file of the cache holds; None if there is none, or it is damaged."""
    shapes = {"mean_image": (size, size, 3), "eigenvalues": (3,), "eigenvectors": (3, 3), "images_per_second": ()}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in shapes}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if any(found[name].shape != shape or found[name].dtype != np.float64 for name, shape in shapes.items()):
        return None
    rate = float(found.pop("images_per_second"))
    return KeptStatistics(Statistics(**found), rate)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
