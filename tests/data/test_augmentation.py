"""Crops, flips and color: what is drawn, for whom, and that the pixels of a view are those of its place."""

from itertools import product
from math import comb, inf, nan, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from alexnet_mp import ConfigurationError
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.data.augmentation import (
    Augmentation,
    ColorNoise,
    EpochDraws,
    Views,
    crop_and_flip,
    evaluation_views,
)

RANDOM = Augmentation(crop="random", flip=True)
NOISE = ColorNoise(std=0.1, eigenvalues="root", divisor=1.1, until_epoch=3)


def drawn(
    augmentation: Augmentation, samples: int, slack: tuple[int, int] = (32, 32), seed: int = 0, epoch: int = 0
) -> Views:
    """The views of all samples, each standing at the position of its number."""
    numbers = torch.arange(samples)
    return EpochDraws(augmentation, seed, epoch, samples, slack).views(numbers, numbers)


def triples(views: Views) -> list[tuple[int, int, bool]]:
    return list(zip(views.tops.tolist(), views.lefts.tolist(), views.flips.tolist(), strict=True))


def by_numpy(image: NDArray[Any], view: tuple[int, int, bool], crop: tuple[int, int]) -> NDArray[Any]:
    """A view of an image [height, width, channels], pixel by pixel."""
    top, left, flip = view
    out = np.empty((*crop, image.shape[2]), dtype=image.dtype)
    for row, column in product(range(crop[0]), range(crop[1])):
        out[row, column] = image[top + row, left + (crop[1] - 1 - column if flip else column)]
    return out


def test_every_view_has_the_pixels_of_its_place_mirrored_where_it_says() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 7, 9, 3), dtype=np.uint8)
    crop, places = (4, 5), [(0, 0, False), (3, 4, False), (3, 0, True), (0, 4, True), (1, 2, True)]
    tops, lefts, flips = (torch.tensor(column) for column in zip(*places, strict=True))
    out = torch.empty((5, *crop, 3), dtype=torch.uint8)
    crop_and_flip(list(torch.from_numpy(images)), Views(tops, lefts, flips), out)
    for image, view, found in zip(images, places, out.numpy(), strict=True):
        np.testing.assert_array_equal(found, by_numpy(image, view, crop))


def test_crops_lie_anywhere_from_0_to_the_slack_inclusive_and_nowhere_else() -> None:
    # Of 4,000 draws from 33 places, one place misses all once in 10^52 seeds.
    views = drawn(RANDOM, 4000, slack=(32, 5))
    assert set(views.tops.tolist()) == set(range(33))
    assert set(views.lefts.tolist()) == set(range(6))


def test_down_and_right_are_drawn_apart() -> None:
    views = drawn(RANDOM, 4000, slack=(2, 2))
    assert set(triples(views)) == set(product(range(3), range(3), (False, True)))


@pytest.mark.parametrize("slack", [(0, 0), (0, 3)])
def test_without_slack_there_is_one_place(slack: tuple[int, int]) -> None:
    views = drawn(RANDOM, 500, slack)
    assert set(views.tops.tolist()) == {0}
    assert set(views.lefts.tolist()) == set(range(slack[1] + 1))


def test_half_of_the_images_are_flipped() -> None:
    n = 4000
    flipped = int(drawn(RANDOM, n).flips.sum())
    # The chance, exactly, that fair coins fall as unevenly as this or more so.
    chance = 2 * sum(comb(n, k) for k in range(min(flipped, n - flipped) + 1)) / 2**n
    assert chance > 1e-3


def test_without_flip_none_is() -> None:
    assert not drawn(Augmentation(crop="random", flip=False), 500).flips.any()


@pytest.mark.parametrize("slack, center", [((32, 32), (16, 16)), ((5, 3), (2, 1)), ((1, 0), (0, 0))], ids=str)
def test_the_center_crop_leaves_the_odd_pixel_below_and_on_the_right(
    slack: tuple[int, int], center: tuple[int, int]
) -> None:
    assert set(triples(drawn(Augmentation(crop="center"), 50, slack))) == {(*center, False)}
    assert triples(evaluation_views(1, slack)) == [(*center, False)]


def test_the_ten_views_are_the_corners_and_the_center_then_the_same_mirrored() -> None:
    corners_and_center = [(0, 0), (0, 5), (3, 0), (3, 5), (1, 2)]
    expected = [(*place, flip) for flip in (False, True) for place in corners_and_center]
    assert triples(evaluation_views(10, (3, 5))) == expected


def test_the_nine_views_are_three_by_three_and_none_is_mirrored() -> None:
    # 24x24 of 32x32, as CroppedCIFARDataProvider lists them (convdata_cifar.py).
    offsets = [(0, 0), (0, 4), (0, 8), (4, 0), (4, 4), (4, 8), (8, 0), (8, 4), (8, 8)]
    assert triples(evaluation_views(9, (8, 8))) == [(*offset, False) for offset in offsets]


def alphas(noise: ColorNoise, samples: int, seed: int = 0, epoch: int = 0) -> NDArray[np.float64]:
    found = EpochDraws(Augmentation(color=noise), seed, epoch, samples, (0, 0)).alphas(torch.arange(samples))
    assert found is not None
    return found.double().numpy()


@pytest.mark.parametrize("std", [0.1, 2.5])
def test_alphas_are_normal_with_the_stated_std_and_independent(std: float) -> None:
    found = alphas(ColorNoise(std, "root"), 20_000)
    assert found.shape == (20_000, 3)
    # Five standard errors of each: of the std 1 / sqrt(2 n), of the rest 1 / sqrt(n) or a little less.
    np.testing.assert_allclose(found.std(axis=0), std, rtol=5 / sqrt(2 * 20_000))
    np.testing.assert_allclose(found.mean(axis=0) / std, 0, atol=5 / sqrt(20_000))
    assert np.mean(np.abs(found) < std) == pytest.approx(0.6827, abs=5 / sqrt(20_000))
    correlations = np.corrcoef(found.T)[np.triu_indices(3, 1)]
    np.testing.assert_allclose(correlations, 0, atol=5 / sqrt(20_000))
    assert len(np.unique(found, axis=0)) == len(found)


def test_the_noise_ends_after_its_last_epoch() -> None:
    having = [
        EpochDraws(Augmentation(color=NOISE), 0, epoch, 4, (0, 0)).alphas(torch.arange(4)) is not None
        for epoch in range(5)
    ]
    assert having == [True, True, True, False, False]


@pytest.mark.parametrize("noise, epoch", [(ColorNoise(0.1, "root"), 1000), (ColorNoise(0.1, "literal"), 0)])
def test_noise_without_a_last_epoch_never_ends(noise: ColorNoise, epoch: int) -> None:
    assert alphas(noise, 4, epoch=epoch).any()


def test_neighbors_in_the_epochs_order_share_a_view_and_not_the_color() -> None:
    # Samples in an order that is not that of their numbers: it is the position that counts.
    samples, positions = torch.randperm(100, generator=torch.Generator().manual_seed(0)), torch.arange(100)
    draws = EpochDraws(Augmentation("random", True, shared_by=32, color=NOISE), 0, 0, 100, (32, 32))
    views = triples(draws.views(samples, positions))
    groups = [set(views[first : first + 32]) for first in range(0, 100, 32)]
    assert [len(group) for group in groups] == [1] * 4
    assert len(set.union(*groups)) == 4  # of 33 * 33 * 2 views
    colors = draws.alphas(samples)
    assert colors is not None and len(colors.unique(dim=0)) == 100


def test_a_sample_has_its_own_view_and_color_wherever_it_stands() -> None:
    draws = EpochDraws(Augmentation("random", True, color=NOISE), 0, 0, 100, (32, 32))
    everyone = torch.arange(100)
    views, colors = triples(draws.views(everyone, everyone)), draws.alphas(everyone)
    some, places = torch.tensor([7, 93, 0]), torch.tensor([50, 2, 99])
    assert triples(draws.views(some, places)) == [views[7], views[93], views[0]]
    assert colors is not None and torch.equal(draws.alphas(some), colors[some])


@pytest.mark.parametrize("seed, epoch", [(1, 0), (0, 1)])
def test_another_seed_or_epoch_draws_anew_and_the_same_one_draws_alike(seed: int, epoch: int) -> None:
    first, again, other = drawn(RANDOM, 500), drawn(RANDOM, 500), drawn(RANDOM, 500, seed=seed, epoch=epoch)
    assert triples(first) == triples(again)
    for one, two in ((first.tops, other.tops), (first.lefts, other.lefts), (first.flips, other.flips)):
        assert not torch.equal(one, two)
    np.testing.assert_array_equal(alphas(NOISE, 500), alphas(NOISE, 500))
    assert not (alphas(NOISE, 500) == alphas(NOISE, 500, seed, epoch)).any()


WRONG_NUMBERS: dict[str, tuple[dict[str, object], str]] = {
    "shared_by_0": ({"shared_by": 0}, r"augmentation\.shared_by is 0, must be positive"),
    "std_negative": ({"color": {"std": -0.1}}, r"color\.std is -0\.1, must not be negative"),
    "std_nan": ({"color": {"std": nan}}, r"color\.std is nan"),
    "std_infinite": ({"color": {"std": inf}}, r"color\.std is inf"),
    "divisor_0": ({"color": {"divisor": 0}}, r"color\.divisor is 0\.0, must be positive"),
    "divisor_nan": ({"color": {"divisor": nan}}, r"color\.divisor is nan"),
    "divisor_infinite": ({"color": {"divisor": inf}}, r"color\.divisor is inf"),
}


@pytest.mark.parametrize("augmentation, message", WRONG_NUMBERS.values(), ids=WRONG_NUMBERS)
def test_numbers_that_cannot_be_are_refused_by_name(augmentation: dict[str, Any], message: str) -> None:
    if "color" in augmentation:
        augmentation = {"color": {"std": 0.1, "eigenvalues": "root", **augmentation["color"]}}
    with pytest.raises(ConfigurationError, match=message):
        from_mapping(Augmentation, augmentation, "recipe.augmentation")
