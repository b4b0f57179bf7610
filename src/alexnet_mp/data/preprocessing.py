"""Turns uint8 crops into what a network reads, on its device: subtracts the mean, adds color noise, divides."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alexnet_mp.common.device import upload
from alexnet_mp.common.schema import PositiveFloat
from alexnet_mp.data.augmentation import ColorNoise, Views
from alexnet_mp.data.dataset import Statistics


@dataclass(frozen=True)
class InputScale:
    """What the network is given of a pixel: (pixel - mean) / `pixel_divisor`, pixels on the 0..255 scale.

    The authors' divisor is 1 (paper §2). `mean` is `pixel`: the mean image, cropped and mirrored as the image was, so
    that every pixel loses its own mean (paper §2); or `center`: always the mean image's center crop, not mirrored, as
    in the original code (convdata*.py).
    """

    pixel_divisor: PositiveFloat = 1.0
    mean: Literal["pixel", "center"] = "pixel"


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops as the loader leaves them, uint8 [n * v, height, width, channels], the v views of an image side by side.

    `labels` int64 [n]; `views` and, if there is color noise, `alphas` [n * v, 3] say what was drawn for each crop.
    """

    pixels: Tensor
    labels: Tensor
    views: Views
    alphas: Tensor | None = None

    @property
    def views_per_image(self) -> int:
        return len(self.pixels) // len(self.labels)

    def pinned(self) -> "Batch":
        """The same in memory from which a GPU copies without the host's waiting for it."""
        return self._with_each(Tensor.pin_memory)

    def on(self, device: torch.device) -> "Batch":
        """The same on `device`."""
        return self._with_each(lambda tensor: upload(tensor, device))

    def _with_each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        views = Views(change(self.views.tops), change(self.views.lefts), change(self.views.flips))
        alphas = None if self.alphas is None else change(self.alphas)
        return Batch(change(self.pixels), change(self.labels), views, alphas)


class Preprocessing:
    """Turns batches into images for a network, on whichever device its towers are."""

    def __init__(
        self,
        statistics: Statistics,
        crop: tuple[int, int],
        scale: InputScale,
        dtype: torch.dtype,
        color: ColorNoise | None = None,
    ) -> None:
        """`crop` is the (height, width) of the network's image; `color` is needed for batches with `alphas`."""
        self._scale = scale
        self._dtype = dtype
        self._color_divisor = color.divisor if color else 1.0
        mean = torch.from_numpy(statistics.mean_image).to(dtype)  # [height, width, channels]
        if scale.mean == "center":
            top, left = ((have - want) // 2 for have, want in zip(mean.shape, crop, strict=False))
            mean = mean[top : top + crop[0], left : left + crop[1]]
        else:
            mean = torch.stack([mean, mean.flip(1)])  # as it is, and mirrored
        self._crop = crop
        spread = torch.from_numpy(statistics.eigenvalues)
        if color and color.eigenvalues == "root":
            spread = spread.sqrt()
        components = torch.from_numpy(statistics.eigenvectors) * spread  # column i: p_i s_i
        self._constants = {torch.device("cpu"): (mean, components.to(dtype))}

    def __call__(self, batch: Batch, device: torch.device) -> Tensor:
        """The batch's crops as the network reads them: [n * v, channels, height, width] on `device`, channels_last."""
        mean, components = self._constants_on(device)
        batch = batch.on(device)
        images = batch.pixels.to(self._dtype)  # [n * v, height, width, channels]
        images -= mean if self._scale.mean == "center" else _crops_of(mean, batch.views, self._crop)
        if batch.alphas is not None:
            images += (batch.alphas.to(self._dtype) @ components.T)[:, None, None]
            images /= self._color_divisor
        if self._scale.pixel_divisor != 1:
            images /= self._scale.pixel_divisor
        return images.permute(0, 3, 1, 2)

    def on_each(self, batch: Batch, devices: Sequence[torch.device]) -> list[Tensor]:
        """The same images on every one of `devices`; a device that stands there twice has them once."""
        images = {device: self(batch, device) for device in dict.fromkeys(devices)}
        return [images[device] for device in devices]

    def _constants_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._constants:
            mean, components = next(iter(self._constants.values()))
            self._constants[device] = mean.to(device), components.to(device)
        return self._constants[device]


def _crops_of(mean: Tensor, views: Views, crop: tuple[int, int]) -> Tensor:
    """Of `mean` [2, height, width, channels], as it is and mirrored, each view's crop: [n, *crop, channels].

    In a fixed number of operations, whatever n is, because on a GPU each costs a launch.
    """
    height, width = crop
    _, _, side, channels = mean.shape
    # Element [mirrored, top, left] is the row of a crop that begins there, in one piece.
    places = (2, mean.shape[1], side - width + 1, width * channels)
    rows = mean.as_strided(places, (*mean.stride()[:2], channels, 1))
    # Mirrored, what was `left` pixels from the left edge is as far from the right one.
    lefts = torch.where(views.flips, side - width - views.lefts, views.lefts)
    tops = views.tops[:, None] + torch.arange(height, device=mean.device)
    return rows[views.flips.long()[:, None], tops, lefts[:, None]].view(-1, height, width, channels)
