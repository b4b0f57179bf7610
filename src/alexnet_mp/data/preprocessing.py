"""Turns uint8 crops into what a network reads, on its device: subtracts the mean, adds color noise, divides."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

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
        # [channels, height, width], but in the memory format of the pixels, as all images here
        mean = torch.from_numpy(statistics.mean_image).to(dtype).permute(2, 0, 1)
        top, left = ((have - want) // 2 for have, want in zip(mean.shape[1:], crop, strict=True))
        if scale.mean == "center":
            mean = mean[:, top : top + crop[0], left : left + crop[1]]
        spread = torch.from_numpy(statistics.eigenvalues)
        if color and color.eigenvalues == "root":
            spread = spread.sqrt()
        components = torch.from_numpy(statistics.eigenvectors) * spread  # column i: p_i s_i
        self._constants = {torch.device("cpu"): (mean, components.to(dtype))}

    def __call__(self, batch: Batch, device: torch.device) -> Tensor:
        """The batch's crops as the network reads them: [n * v, channels, height, width] on `device`, channels_last."""
        mean, components = self._on(device)
        pixels = batch.pixels.to(device, non_blocking=True)
        images = pixels.permute(0, 3, 1, 2).to(self._dtype)  # channels_last, as they were
        if self._scale.mean == "center":
            images -= mean
        else:
            _subtract_crops(images, mean, batch.views)
        if batch.alphas is not None:
            alphas = batch.alphas.to(device, self._dtype, non_blocking=True)
            images += (alphas @ components.T)[:, :, None, None]
            images /= self._color_divisor
        if self._scale.pixel_divisor != 1:
            images /= self._scale.pixel_divisor
        return images

    def on_each(self, batch: Batch, devices: Sequence[torch.device]) -> list[Tensor]:
        """The same images on every one of `devices`; a device that stands there twice has them once."""
        images = {device: self(batch, device) for device in dict.fromkeys(devices)}
        return [images[device] for device in devices]

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._constants:
            mean, components = next(iter(self._constants.values()))
            self._constants[device] = mean.to(device), components.to(device)
        return self._constants[device]


def _subtract_crops(images: Tensor, mean: Tensor, views: Views) -> None:
    """Subtract from each image [channels, height, width] the mean image's crop, at its place and mirrored as it is."""
    height, width = images.shape[2:]
    mirrored, side = mean.flip(2), mean.shape[2]
    places = zip(views.tops.tolist(), views.lefts.tolist(), views.flips.tolist(), strict=True)
    for image, (top, left, flip) in zip(images, places, strict=True):
        # Mirrored, what was `left` pixels from the left edge is as far from the right one.
        whole, first = (mirrored, side - width - left) if flip else (mean, left)
        image -= whole[:, top : top + height, first : first + width]
