"""Makes shards in several processes, or in this one: decodes the pictures of each, writes it, and sums it up."""

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_mp.data.jpeg import decode_jpeg, encode_jpeg
from alexnet_mp.data.manifest import UINT8, UINT32, npy_header
from alexnet_mp.data.pack import OpenFile
from alexnet_mp.data.prepare.decode import BadPicture, decode_cifar10, decode_image, pillow_limits
from alexnet_mp.data.prepare.listing import Encoding, Extent, Picture, inflate
from alexnet_mp.data.prepare.statistics import no_sums
from alexnet_mp.errors import ConfigurationError, explained

Triple = tuple[int, int, int]

_PIXELS_A_BLOCK = 1 << 16  # images are counted in together up to this size, so that small ones cost little each


@dataclass(frozen=True)
class ShardTask:
    """One shard to make: `file` gets the pictures that can be decoded, `sums` (if given) the sum of their pixels.

    With `quality` the file gets JPEGs of that quality, and what is summed is what they are decoded to.
    """

    split: str
    number: int
    file: Path
    sums: Path | None
    pictures: tuple[Picture, ...]
    encoding: Encoding
    size: int
    max_pixels: int
    strict: bool
    quality: int | None = None


@dataclass(frozen=True)
class ShardResult:
    """What is in a shard that was made; `products` are the sums of products of channel pairs, over all pixels.

    `digests` has one for each of the task's pictures, of its bytes, in hexadecimal; an empty one if it was skipped.
    `lengths` are the bytes of each image of a shard of JPEGs.
    """

    count: int
    sha256: str
    labels: tuple[int, ...]
    skipped: tuple[tuple[str, str], ...]
    products: tuple[Triple, Triple, Triple]
    digests: tuple[str, ...]
    lengths: tuple[int, ...] = ()


def make_shards(tasks: Sequence[ShardTask], workers: int) -> Iterator[tuple[ShardTask, ShardResult]]:
    """Make every shard; one worker is this process itself. Results come in no order.

    Raises the ConfigurationError of a shard that cannot be made, when the shards that are being made are done, and one
    if a process dies.
    """
    if workers == 1:
        for task in tasks:
            yield task, make_shard(task)
        return
    died = (
        "a worker process died, perhaps for lack of memory; the same command goes on from the finished shards "
        f"(workers={max(1, workers // 2)} would need less)"
    )
    pool = ProcessPoolExecutor(min(workers, len(tasks)), _context(), _prepare_worker)
    with explained(died, BrokenProcessPool), pool:
        try:
            futures = {pool.submit(make_shard, task): task for task in tasks}
            for future in as_completed(futures):
                yield futures.pop(future), future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _context() -> multiprocessing.context.BaseContext:
    """Processes that inherit no threads. A fork server, if there is one, imports the library once for all."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([make_shard.__module__])
    return context


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers, and they would write into what its successor writes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def make_shard(task: ShardTask) -> ShardResult:
    """Write a shard. Raises ConfigurationError if it cannot, or if `strict` and a picture cannot be decoded."""
    with explained(f"cannot write {task.file}"), pillow_limits(task.max_pixels):
        return _make(task)


def _make(task: ShardTask) -> ShardResult:
    shape = (task.size, task.size, 3)
    labels: list[int] = []
    skipped: list[tuple[str, str]] = []
    digests: list[str] = []
    sums = no_sums(task.size, np.uint32)
    lengths: list[int] = []
    header = npy_header(UINT8, (len(task.pictures), *shape)) if task.quality is None else b""
    digest = hashlib.sha256(header)
    images = _decoded(task, labels, skipped, digests)
    with task.file.open("wb") as file:
        file.write(header)
        while some := list(islice(images, max(1, _PIXELS_A_BLOCK // task.size**2))):
            block = np.stack(some)  # [n, size, size, 3]
            written = block.data if task.quality is None else _compress(block, task.quality, lengths)
            file.write(written)
            digest.update(written)
            if task.sums is not None:
                sums.add_images(block)
        if skipped and header:
            shorter = npy_header(UINT8, (len(labels), *shape))
            assert len(shorter) == len(header)
            file.seek(0)
            file.write(shorter)
    if skipped and header:
        with task.file.open("rb") as shard:
            digest = hashlib.file_digest(shard, "sha256")
    if task.sums is not None:
        task.sums.write_bytes(npy_header(UINT32, shape) + sums.pixels.astype(np.dtype(UINT32)).tobytes())
    r, g, b = ((row[0], row[1], row[2]) for row in sums.products.tolist())
    found = tuple(labels), tuple(skipped), (r, g, b), tuple(digests), tuple(lengths)
    return ShardResult(len(labels), digest.hexdigest(), *found)


def _compress(block: NDArray[np.uint8], quality: int, lengths: list[int]) -> bytes:
    """The JPEG files of the images [n, size, size, 3], which become what those are decoded to; notes their lengths."""
    files = [encode_jpeg(image, quality) for image in block]
    for file, image in zip(files, block, strict=True):
        decode_jpeg(file, image)
    lengths += map(len, files)
    return b"".join(files)


def _decoded(
    task: ShardTask, labels: list[int], skipped: list[tuple[str, str]], digests: list[str]
) -> Iterator[NDArray[np.uint8]]:
    """The pictures that can be decoded; their labels and digests, and those that cannot, go into the lists."""
    decode = {"image": decode_image, "cifar10": decode_cifar10}[task.encoding]
    opened = lru_cache(1)(OpenFile)  # an archive is opened once a shard
    for picture in task.pictures:
        try:
            content = _read(picture.extent, opened)
            pixels = decode(content, task.size, task.max_pixels)
        except BadPicture as problem:
            if task.strict:
                raise ConfigurationError(f"{picture.name}: {problem}; strict=false skips such pictures") from problem
            skipped.append((picture.name, str(problem)))
            digests.append("")
            continue
        labels.append(picture.label)
        digests.append(hashlib.blake2b(content, digest_size=12).hexdigest())
        yield pixels


def _read(extent: Extent, opened: Callable[[str], OpenFile]) -> bytes:
    try:
        content = os.pread(opened(extent.path).descriptor, extent.length, extent.offset)
    except OSError as error:
        raise BadPicture(f"cannot be read: {error.strerror}") from error
    if len(content) != extent.length:
        raise BadPicture(f"cut short: {len(content):,} of {extent.length:,} bytes are there")
    try:
        return inflate(content, extent.inflated) if extent.inflated else content
    except ValueError as error:
        raise BadPicture(str(error)) from error
