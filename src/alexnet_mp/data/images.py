"""A set of images in memory, and the batches of it that a replica works on."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from alexnet_mp.errors import ConfigurationError
from alexnet_mp.randomness import keyed_generator


@dataclass(frozen=True)
class Images:
    """`pixels` uint8 [n, channels, height, width] on the 0..255 scale, `labels` int64 [n]."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DataSet:
    """Training and validation images of the same classes; `description` says where they come from, in one line."""

    name: str
    description: str
    class_names: tuple[str, ...]
    train: Images
    validation: Images


@dataclass(frozen=True)
class Share:
    """The part of every global batch that a replica works on: its r-th slice."""

    replica: int = 0
    replicas: int = 1


@dataclass(frozen=True)
class Batch:
    """`images` float [n, channels, height, width], centred; `labels` int64 [n]."""

    images: Tensor
    labels: Tensor


class Batches:
    """Training and validation batches for one replica, keyed by seed and epoch, the same under every placement.

    Images are centred on the training set's mean activity per pixel (paper §2) and divided by `pixel_divisor`.
    """

    def __init__(
        self, data: DataSet, batch_size: int, share: Share, seed: int, pixel_divisor: float, dtype: torch.dtype
    ) -> None:
        """`batch_size` is the global one. Raises ConfigurationError where the data has less than one batch."""
        if len(data.train) < batch_size:
            raise ConfigurationError(
                f"recipe.batch_size={batch_size} is more than the {len(data.train)} training images of {data.name}"
            )
        self.steps_per_epoch = len(data.train) // batch_size
        self._data = data
        self._batch_size = batch_size
        self._share = share
        self._seed = seed
        self._divisor = pixel_divisor
        self._dtype = dtype
        self._mean = data.train.pixels.mean(dim=0, dtype=torch.float64)  # [channels, height, width]

    def training(self, epoch: int) -> Iterator[Batch]:
        """This replica's slices of the global batches of an epoch (from 0): batch b is `order[b*B:(b+1)*B]`.

        The images left over when the epoch has no whole batch more are not used; the next epoch's order has others.
        """
        order = torch.randperm(len(self._data.train), generator=keyed_generator(self._seed, "order", epoch))
        size = self._batch_size // self._share.replicas
        for start in range(0, self.steps_per_epoch * self._batch_size, self._batch_size):
            first = start + self._share.replica * size
            yield self._batch(self._data.train, order[first : first + size])

    def validation(self) -> Iterator[Batch]:
        """This replica's share of the validation images; over all replicas every image comes once."""
        mine = torch.arange(self._share.replica, len(self._data.validation), self._share.replicas)
        for rows in torch.split(mine, self._batch_size):
            yield self._batch(self._data.validation, rows)

    def _batch(self, images: Images, rows: Tensor) -> Batch:
        centred = images.pixels[rows].to(torch.float64).sub_(self._mean).div_(self._divisor)
        return Batch(centred.to(self._dtype), images.labels[rows])
