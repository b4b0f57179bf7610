"""Loads one replica's batches of a data set, read ahead of the training by threads."""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from alexnet_mp.common.rng import keyed_generator
from alexnet_mp.common.schema import PositiveInt
from alexnet_mp.data.augmentation import Augmentation, EpochDraws, ViewCount, Views, crop_and_flip, evaluation_views
from alexnet_mp.data.dataset import DataSet, Images, Share
from alexnet_mp.data.preprocessing import Batch
from alexnet_mp.errors import ConfigurationError

LOG = logging.getLogger("alexnet_mp")
_LONG_EPOCH, _LONG_WAIT = 10.0, 0.1  # seconds, and the part of them from which a wait is worth a word

Order = Literal["shuffled", "fixed"]


@dataclass(frozen=True)
class LoaderSettings:
    """How batches are read: `threads` at a time, up to `read_ahead` of them before they are asked for.

    `drop_behind` tells the kernel that images just used need not stay in its page cache, so that it keeps what is read
    ahead; null: if a split is larger than half of the machine's memory and would not stay there anyway.
    """

    threads: PositiveInt = 2
    read_ahead: PositiveInt = 4
    drop_behind: bool | None = None


@dataclass(frozen=True, eq=False)
class _Request:
    """A batch to be read: which images, which views of each, and their color noise."""

    images: Images
    rows: Tensor
    views: Views
    alphas: Tensor | None = None


@dataclass(eq=False)
class Loader:
    """Training and evaluation batches for one replica, keyed by seed and epoch, the same under every placement.

    A batch is read into the buffer of its thread, and cropped from there. So memory depends on the batch and not on the
    data set, but for some 30 bytes an image of labels, order and draws. Both towers of a replica are given the same
    batches, by a loader of their own if they live in two processes.

    `crop` is (height, width), `batch_size` the global one; `pin_memory` is for batches that go to a GPU.

    Raises ConfigurationError if the data has less than one batch, or images smaller than the crop.
    """

    data: DataSet
    crop: tuple[int, int]
    batch_size: int
    share: Share
    seed: int
    augmentation: Augmentation = Augmentation()  # noqa: RUF009  (frozen)
    order: Order = "shuffled"
    settings: LoaderSettings = LoaderSettings()
    pin_memory: bool = False

    def __post_init__(self) -> None:
        train = self.data.splits["train"]
        if len(train) < self.batch_size:
            raise ConfigurationError(
                f"recipe.batch_size={self.batch_size} is more than the {len(train)} training images of {self.data.name}"
            )
        height, width, _ = train.image_shape
        if height < self.crop[0] or width < self.crop[1]:
            raise ConfigurationError(
                f"the network's image is {self.crop[0]}x{self.crop[1]} and those of {self.data.name} are "
                f"{height}x{width}; prepare them at least as large, or change network.image"
            )
        self.steps_per_epoch = len(train) // self.batch_size
        self._slack = (height - self.crop[0], width - self.crop[1])
        self._of_thread = threading.local()

    def training(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """This replica's slices of the global batches of an epoch (from 0): batch b is `order[b*B:(b+1)*B]`.

        `skip` leaves out the first images of the order, of which a run that goes on has seen so many.

        Shuffled: each epoch has an order of its own, and the images left over when it has no whole batch more are not
        used. Fixed: the order of the data set, every epoch going on where the one before stopped.
        """
        return self._watched(self._ahead(self._training_requests(epoch, skip)))

    def evaluation(self, split: str, views: ViewCount = 1, rows: Tensor | None = None) -> Iterator[Batch]:
        """This replica's share of a split, in one view of each image or several; over all replicas every image once.

        `rows` [n] are the numbers of the images to take, in that order; without it, all of the split.
        A batch of several views has fewer images, so that it has no more crops than one of training.
        """
        images = self.data.splits[split]
        return self._ahead(
            self._evaluation_requests(images, views, torch.arange(len(images)) if rows is None else rows)
        )

    def validation(self) -> Iterator[Batch]:
        """`evaluation` of the split that training does not see, in the center."""
        return self.evaluation(self.data.held_out)

    def _training_requests(self, epoch: int, skip: int) -> Iterator[_Request]:
        train = self.data.splits["train"]
        used = self.steps_per_epoch * self.batch_size
        if self.order == "shuffled":
            order = torch.randperm(len(train), generator=keyed_generator(self.seed, "order", epoch))
        else:
            order = (torch.arange(used) + epoch * used) % len(train)
        draws = EpochDraws(self.augmentation, self.seed, epoch, len(train), self._slack)
        size = self.batch_size // self.share.replicas
        for batch in range(skip, used - self.batch_size + 1, self.batch_size):
            start = batch + self.share.replica * size
            rows = order[start : start + size]
            views = draws.views(rows, torch.arange(start, start + size))
            yield _Request(train, rows, views, draws.alphas(rows))

    def evaluation_batches(self, split: str, views: ViewCount = 1) -> int:
        """How many batches `evaluation` has in the replica that has most."""
        largest_share = -(-len(self.data.splits[split]) // self.share.replicas)
        return -(-largest_share // self._evaluation_size(views))

    def _evaluation_size(self, views: int) -> int:
        return max(1, self.batch_size // self.share.replicas // views)

    def _evaluation_requests(self, images: Images, count: ViewCount, rows: Tensor) -> Iterator[_Request]:
        views = evaluation_views(count, self._slack)
        mine = rows[self.share.replica :: self.share.replicas]
        for rows in torch.split(mine, self._evaluation_size(count)) if len(mine) else ():
            yield _Request(images, rows, views[torch.arange(count).repeat(len(rows))])

    def _watched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; says at their end how much of the time the training waited for them, if that was long."""
        began, waited, images = time.perf_counter(), 0.0, 0
        asked = began
        for batch in batches:
            waited += time.perf_counter() - asked
            images += len(batch.labels)
            yield batch
            asked = time.perf_counter()
        seconds = time.perf_counter() - began
        if seconds > _LONG_EPOCH and waited > _LONG_WAIT * seconds:
            read, taken, threads = images / seconds, images / max(seconds - waited, 1e-9), self.settings.threads
            text = "%-10s %.0f images/s are read by %d threads and the network could take %.0f; see loader.threads"
            LOG.warning(text, "loader", read, threads, taken)

    def _ahead(self, requests: Iterable[_Request]) -> Iterator[Batch]:
        """The batches of `requests` in order, while threads read the next ones."""
        waiting: deque[tuple[_Request, Future[Batch]]] = deque()
        pool = ThreadPoolExecutor(self.settings.threads, thread_name_prefix="loader")
        try:
            for request in requests:
                waiting.append((request, pool.submit(self._read, request)))
                if len(waiting) > self.settings.read_ahead:
                    yield self._taken(*waiting.popleft())
            while waiting:
                yield self._taken(*waiting.popleft())
        finally:  # also if the caller stops early, or a batch could not be read
            pool.shutdown(wait=True, cancel_futures=True)

    def _taken(self, request: _Request, batch: Future[Batch]) -> Batch:
        read = batch.result()
        if self._drops_behind(request.images):
            request.images.forget(request.rows.numpy())
        return read

    def _read(self, request: _Request) -> Batch:
        count, (height, width, channels) = len(request.rows), request.images.image_shape
        whole = self._buffer(count * height * width * channels).reshape(count, height, width, channels)
        request.images.read(request.rows.numpy(), whole)
        views_per_image = len(request.views) // count
        images = [image for image in torch.from_numpy(whole) for _ in range(views_per_image)]
        shape = (len(request.views), *self.crop, channels)
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=self.pin_memory)
        crop_and_flip(images, request.views, pixels)
        labels = torch.from_numpy(request.images.labels[request.rows.numpy()])
        batch = Batch(pixels, labels, request.views, request.alphas)
        return batch.pinned() if self.pin_memory else batch

    def _buffer(self, size: int) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
        held = getattr(self._of_thread, "buffer", None)
        if held is None or len(held) < size:
            held = self._of_thread.buffer = np.empty(size, dtype=np.uint8)
        return held[:size]

    def _drops_behind(self, images: Images) -> bool:
        if self.settings.drop_behind is not None:
            return self.settings.drop_behind
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return images.stored_bytes > memory / 2
