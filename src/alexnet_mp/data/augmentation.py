"""Augmentation (paper §4.1): which crop, reflection and color each training image gets, and the views of evaluation.

Draws are keyed by (seed, epoch, sample): an epoch's draws are one table, made alike in every process, and a sample
takes its row. So it gets the same view wherever, by whichever thread and in how many processes it is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alexnet_mp.common.rng import keyed_generator
from alexnet_mp.common.schema import NonNegativeFloat, PositiveFloat, PositiveInt
from alexnet_mp.errors import ConfigurationError

ViewCount = Literal[1, 9, 10]  # how many views of an image an evaluation averages

RGB_CHANNELS = 3  # the noise lies along the three principal components of RGB


@dataclass(frozen=True)
class ColorNoise:
    """Add P (α ∘ s) to every pixel of an image, P the eigenvectors of the RGB covariance, α ~ N(0, `std`) (paper §4.1).

    The text has s = λ, the eigenvalues. Over ImageNet they are 121.78², 37.09² and 19.72² on the scale of 0..255, so
    that α λ would have a spread of 1,483 gray levels along the first component, and no picture would be left. Their
    `root`, the spread of the pixels themselves, gives 12 gray levels, and is what the original code multiplied by
    (convdata*.py of the AlexNet-Source-Code release). `literal` is the text.

    With the noise, an image is divided by `divisor` (1.1 in the original code, so that the spread of training images
    stays near that of the images evaluated). The noise ends after epoch `until_epoch`; null: never.
    """

    std: NonNegativeFloat
    eigenvalues: Literal["root", "literal"]
    divisor: PositiveFloat = 1.0
    until_epoch: int | None = None


@dataclass(frozen=True)
class Augmentation:
    """How training images vary: `crop` anywhere or in the center, `flip` half of them left to right, color.

    `shared_by` neighbors in the order of the epoch share a crop and a flip (32 in the original code; 1 in the text).
    """

    crop: Literal["random", "center"] = "center"
    flip: bool = False
    shared_by: PositiveInt = 1
    color: ColorNoise | None = None

    def check_channels(self, channels: int) -> None:
        """Raise ConfigurationError if images of so many channels cannot vary like this."""
        if self.color and channels != RGB_CHANNELS:
            raise ConfigurationError(
                f"color noise needs {RGB_CHANNELS} channels, the network reads {channels}; "
                "recipe.augmentation.color=null trains without it"
            )


@dataclass(frozen=True, eq=False)
class Views:
    """Of each image, the offset of its crop in pixels, `tops` and `lefts` [n], and `flips` bool [n].

    A flipped view is the crop at that offset, then mirrored left to right.
    """

    tops: Tensor
    lefts: Tensor
    flips: Tensor

    def __len__(self) -> int:
        return len(self.tops)

    def __getitem__(self, index: Tensor) -> "Views":
        return Views(self.tops[index].long(), self.lefts[index].long(), self.flips[index])


class EpochDraws:
    """The random draws of one epoch over `samples` images whose crops may lie 0..slack (down, right) pixels off."""

    def __init__(self, augmentation: Augmentation, seed: int, epoch: int, samples: int, slack: tuple[int, int]) -> None:
        """`epoch` counts from 0."""
        self._shared_by = augmentation.shared_by
        groups = -(-samples // augmentation.shared_by)
        if augmentation.crop == "random":
            generator = keyed_generator(seed, "crop", epoch)
            tops, lefts = (
                torch.randint(0, room + 1, (groups,), generator=generator, dtype=torch.int16) for room in slack
            )
        else:
            tops, lefts = (torch.full((groups,), room // 2, dtype=torch.int16) for room in slack)
        flips = torch.zeros(groups, dtype=torch.bool)
        if augmentation.flip:
            flips = torch.randint(0, 2, (groups,), generator=keyed_generator(seed, "flip", epoch)).bool()
        self._views = Views(tops, lefts, flips)
        noise = augmentation.color
        self._alphas = None
        if noise and (noise.until_epoch is None or epoch < noise.until_epoch):
            # Every run's noise follows from this key, its spelling included: another would train other runs.
            generator = keyed_generator(seed, "colour", epoch)
            self._alphas = noise.std * torch.randn(samples, RGB_CHANNELS, generator=generator)

    def views(self, samples: Tensor, positions: Tensor) -> Views:
        """The views of `samples` [n] that stand at `positions` [n] of the epoch's order."""
        return self._views[samples if self._shared_by == 1 else positions // self._shared_by]

    def alphas(self, samples: Tensor) -> Tensor | None:
        """α of the color noise, [n, 3], or None if there is no noise in this epoch."""
        return None if self._alphas is None else self._alphas[samples]


def evaluation_views(count: ViewCount, slack: tuple[int, int]) -> Views:
    """The center; or the paper's ten, four corners and the center, then the same mirrored (§4.1); or nine, unflipped.

    Nine is what the authors tested their CIFAR-10 nets with: three offsets down by three across, none mirrored, in rows
    (convdata_cifar.py).
    """
    down, right = slack
    tops_of, lefts_of = (0, down // 2, down), (0, right // 2, right)
    if count == 9:
        offsets = [(top, left) for top in tops_of for left in lefts_of]
    else:
        center = (tops_of[1], lefts_of[1])
        offsets = [center] if count == 1 else 2 * [(0, 0), (0, right), (down, 0), (down, right), center]
    tops, lefts = torch.tensor(offsets).T
    return Views(tops, lefts, (torch.arange(count) >= 5) & (count == 10))


def crop_and_flip(images: Sequence[Tensor], views: Views, out: Tensor) -> None:
    """Write the view of each of n images [height, width, channels] into `out` [n, crop height, width, channels]."""
    height, width = out.shape[1:3]
    places = zip(views.tops.tolist(), views.lefts.tolist(), views.flips.tolist(), strict=True)
    for image, view, (top, left, flip) in zip(images, out, places, strict=True):
        crop = image[top : top + height, left : left + width]
        view.copy_(crop.flip(1) if flip else crop)
