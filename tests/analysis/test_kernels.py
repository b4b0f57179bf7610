"""Colorfulness and its separation against arithmetic, and the kernels' picture pixel by pixel."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from alexnet_mp import build_model, load_network
from alexnet_mp.analysis.figures.kernel_pictures import scale_for
from alexnet_mp.analysis.figures.kernels import (
    colorfulness,
    separation,
)
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.training.kernel_sheet import first_layer_kernels, kernel_sheet


def kernel(red: float, green: float, blue: float, size: int = 3) -> torch.Tensor:
    return torch.tensor([red, green, blue]).view(3, 1, 1) * torch.linspace(-1, 2, size * size).view(1, size, size)


def test_gray_is_0_and_colors_that_add_up_to_nothing_are_1() -> None:
    kernels = torch.stack([kernel(1, 1, 1), kernel(1, -1, 0), kernel(-1, -1, 2), kernel(-3, -3, -3)])
    assert colorfulness([kernels])[0].tolist() == pytest.approx([0, 1, 1, 0], abs=1e-12)


def test_one_color_alone_is_two_thirds_and_size_and_sign_do_not_matter() -> None:
    # (1, 0, 0) less its mean 1/3 is (2/3, -1/3, -1/3): 6/9 of its energy.
    kernels = torch.stack([kernel(1, 0, 0), kernel(0, 0, -0.5), kernel(0, 7, 0)])
    assert colorfulness([kernels])[0].tolist() == pytest.approx([2 / 3] * 3)


def test_noise_is_two_thirds_on_average() -> None:
    noise = torch.randn(4000, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    assert float(colorfulness([noise])[0].mean()) == pytest.approx(2 / 3, abs=0.005)


def test_dead_kernels_are_left_out_by_one_measure_for_all_towers() -> None:
    living = torch.stack([kernel(1, 1, 1), kernel(1, -1, 0)])
    small = 0.04 * torch.stack([kernel(1, 1, 1), kernel(1, -1, 0)])
    first, second = colorfulness([living, torch.cat([small, living])])
    assert first.isnan().tolist() == [False, False]
    assert second.isnan().tolist() == [True, True, False, False]
    assert colorfulness([small])[0].isnan().tolist() == [False, False]  # alone, nothing is larger
    assert colorfulness([torch.zeros(2, 3, 5, 5)])[0].isnan().all()


def test_separated_towers_have_an_auc_of_1_and_the_p_value_of_all_orders() -> None:
    low, high = torch.tensor([0.1, 0.2, 0.3, 0.15]), torch.tensor([0.7, 0.8, 0.6, 0.9, math.nan])
    found = separation([low, high], draws=20_000)
    assert (found.auc, found.more, found.less, found.counted) == (1.0, 1, 0, (4, 4))
    assert found.medians == pytest.approx((0.175, 0.75))
    assert found.difference == pytest.approx(0.575)
    # Of the 70 ways to give eight kernels to two towers of four, two have one tower wholly above the other.
    assert found.p_value == pytest.approx(2 / math.comb(8, 4), rel=0.15)


def test_the_p_value_is_the_share_of_splits_that_are_as_far_apart() -> None:
    one, other = [0.1, 0.4, 0.5, 0.8], [0.2, 0.6, 0.7, 0.9, 0.95]
    pooled = one + other

    def auc(first: tuple[int, ...]) -> float:
        rest = [i for i in range(len(pooled)) if i not in first]
        ahead = sum(pooled[i] > pooled[j] for i in first for j in rest) / (len(first) * len(rest))
        return max(ahead, 1 - ahead)

    splits = [auc(first) for first in combinations(range(9), 4)]
    observed = auc((0, 1, 2, 3))
    found = separation([torch.tensor(one), torch.tensor(other)], draws=20_000)
    assert found.auc == pytest.approx(observed) == pytest.approx(15 / 20)
    assert found.p_value == pytest.approx(np.mean([s >= observed - 1e-9 for s in splits]), abs=0.02)


def test_towers_of_noise_are_apart_as_often_as_the_p_value_says() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(2, 16, 3, 5, 5, generator=generator) for _ in range(200)]
    found = [separation(colorfulness(list(towers)), draws=199).p_value for towers in noise]
    assert np.mean([p <= 0.05 for p in found]) == pytest.approx(0.05, abs=0.04)
    assert np.mean([p <= 0.5 for p in found]) == pytest.approx(0.5, abs=0.1)


def test_equal_towers_are_not_apart_and_the_seed_decides_the_draws() -> None:
    values = torch.tensor([0.2, 0.4, 0.6])
    found = separation([values, values])
    assert (found.auc, found.difference, found.p_value) == (0.5, 0, 1)
    some = [torch.tensor([0.1, 0.5, 0.9, 0.3]), torch.tensor([0.2, 0.6, 0.95, 0.7])]
    assert separation(some, seed=1) == separation(some, seed=1)
    assert separation(some, seed=1).p_value != separation(some, seed=2).p_value


def test_of_three_towers_the_pair_that_is_furthest_apart_counts() -> None:
    found = separation([torch.tensor([0.5, 0.6]), torch.tensor([0.1, 0.2]), torch.tensor([0.55, 0.9])])
    assert (found.auc, found.more, found.less) == (1.0, 0, 1)
    # Two kernels of six in each: any of 6 towers' orders, of which many separate some pair.
    assert found.p_value > 0.5


def test_one_tower_has_no_separation() -> None:
    with pytest.raises(ConfigurationError, match="between towers"):
        separation([torch.tensor([0.1])])
    with pytest.raises(ConfigurationError, match="living"):
        separation([torch.tensor([0.1]), torch.tensor([math.nan])])


def test_the_first_layer_is_found_in_a_state_dict_of_any_order() -> None:
    model = build_model("small")
    state = dict(reversed(model.state_dict().items()))
    first, second = first_layer_kernels(state, "conv1")
    assert torch.equal(first, model.state_dict()["towers.0.conv1.weight"])
    assert torch.equal(second, model.state_dict()["towers.1.conv1.weight"])
    assert first_layer_kernels(state, "conv2")[0].shape[1] == first.shape[0]
    with pytest.raises(ConfigurationError, match="conv9 is no convolution"):
        first_layer_kernels(state, "conv9")
    with pytest.raises(ConfigurationError, match="no kernels"):
        first_layer_kernels({"towers.0.fc8.bias": torch.zeros(3)}, "fc8")


def test_the_paper_has_two_towers_of_48_kernels() -> None:
    with torch.device("meta"):
        shapes = {f"towers.{t}.conv1.weight": torch.empty(48, 3, 11, 11) for t in (0, 1)}
    row = load_network("paper").rows["conv1"]
    assert [tuple(tower.shape) for tower in first_layer_kernels(shapes, "conv1")] == [
        (row.kernels, 3, row.size, row.size)
    ] * 2


def test_a_sheet_has_tower_0_above_tower_1_each_kernel_in_its_own_range() -> None:
    first, second = torch.zeros(2, 2, 3, 1, 1).unbind()
    first[0, 0], first[0, 1] = 0.5, -0.25  # red 255, green 128 - 63.5, blue 128
    second[1, 2] = -20  # the second kernel: blue 1
    sheet = kernel_sheet([first, second], scale=4)
    gap = 2
    assert sheet.shape == (4 + 4 * gap + 4, 4 + gap + 4, 4)
    assert sheet.dtype == np.uint8
    assert (sheet[:4, :4] == [255, 64, 128, 255]).all()
    assert (sheet[:4, 6:] == [128, 128, 128, 255]).all()  # nothing learned
    assert (sheet[-4:, 6:] == [128, 128, 1, 255]).all()
    assert (sheet[4:-4, :, 3] == 0).all() and (sheet[:, 4:6, 3] == 0).all()  # what is between is as the page


def test_96_kernels_are_drawn_in_six_rows_of_16_as_in_the_paper() -> None:
    kernels = torch.randn(48, 3, 11, 11)
    assert scale_for([kernels]) == 8
    side, gap = 44, 2
    height = 2 * (3 * side + 2 * gap) + 4 * gap
    assert kernel_sheet([kernels, kernels], 4).shape == (height, 16 * side + 15 * gap, 4)


def test_kernels_of_one_channel_are_gray_and_of_two_are_refused() -> None:
    sheet = kernel_sheet([torch.randn(4, 1, 3, 3)], 5)
    assert (sheet[..., 0] == sheet[..., 1]).all() and (sheet[..., 1] == sheet[..., 2]).all()
    with pytest.raises(ConfigurationError, match="2 channels"):
        kernel_sheet([torch.randn(4, 2, 3, 3)], 5)
