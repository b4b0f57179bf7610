"""The layers against plain formulas in float64."""

import shutil
from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional as F

from alexnet_mp import load_network
from alexnet_mp.model.layers import (
    lrn as local_response,
)
from alexnet_mp.model.layers import (
    lrn_compiled as compiled_response,
)
from alexnet_mp.model.layers import (
    spatial_norm as spatial,
)
from alexnet_mp.model.layers.dropout import Dropout
from alexnet_mp.model.layers.norm import LocalResponseNorm, SpatialNorm
from alexnet_mp.model.layers.pooling import AveragePool, MaxPool
from alexnet_mp.model.layers.weighted import Convolution
from alexnet_mp.model.tower import Tower
from tests.support import independent


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request) -> Iterator[None]:
    """The CPU threads that share a block of rows."""
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(1)


def maps(*shape: int, scale: float = 30.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).requires_grad_()


def assert_same_values_and_gradients(ours, theirs, x):
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    results = []
    for function in (ours, theirs):
        y = function(x)
        results.append((y, *torch.autograd.grad((y * weight).sum(), x)))
    for ours_, theirs_ in zip(*results, strict=True):
        torch.testing.assert_close(ours_, theirs_, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [1, 3, 5, 7, 9, 11, 19])
@pytest.mark.parametrize("alpha_scales", ["sum", "mean"])
def test_lrn_is_the_formula_in_both_readings_of_alpha(n, alpha_scales):
    alpha = 1e-2 / n if alpha_scales == "mean" else 1e-2
    ours = LocalResponseNorm(n, 2.0, 1e-2, 0.75, alpha_scales)
    assert_same_values_and_gradients(ours, lambda x: independent.lrn(x, alpha, n), maps(2, 7, 4, 3))


@pytest.mark.parametrize("beta", [0.5, 0.75, 1.0])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("block_bytes", [1, 3000, 1 << 30])  # a row at a time, blocks with a rest, all at once
def test_lrn_is_the_formula_whatever_the_blocks_and_the_memory_format(
    beta, memory_format, block_bytes, threads, monkeypatch
):
    monkeypatch.setattr(local_response, "BLOCK_BYTES", block_bytes)
    ours = LocalResponseNorm(5, 2.0, 1e-2, beta, "sum")
    x = maps(3, 7, 5, 4).detach().contiguous(memory_format=memory_format).requires_grad_()
    assert ours(x).stride() == x.stride()
    assert_same_values_and_gradients(ours, lambda x: independent.lrn(x, 1e-2, beta=beta), x)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_lrn_of_several_towers_maps_normalizes_each_by_itself(memory_format):
    x = maps(2, 12, 3, 3).detach().contiguous(memory_format=memory_format).requires_grad_()
    ours = LocalResponseNorm(5, 2.0, 1e-2, 0.75, "sum", towers=3)
    each = lambda x: torch.cat([independent.lrn(part, 1e-2) for part in x.chunk(3, dim=1)], dim=1)  # noqa: E731
    assert_same_values_and_gradients(ours, each, x)


def test_lrn_in_float32_is_within_a_millionth_of_the_formula():
    x = maps(4, 48, 9, 9).detach()
    exact = independent.lrn(x, 1e-4)
    found = LocalResponseNorm(5, 2.0, 1e-4, 0.75, "sum")(x.float())
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_are_normalized_in_float32(dtype):
    x = maps(2, 7, 3, 3).detach().to(dtype)
    layer = LocalResponseNorm(5, 2.0, 1e-2, 0.75, "sum")
    assert layer(x).dtype == dtype
    assert torch.equal(layer(x), layer(x.float()).to(dtype))


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="compiling needs a C++ compiler")
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_compiled_lrn_is_the_formula_too(memory_format, two_threads, monkeypatch):
    monkeypatch.setattr(compiled_response, "BLOCK_BYTES", 2000)
    ours = LocalResponseNorm(5, 2.0, 1e-2, 0.75, "sum", towers=2)
    ours.compiled = True
    each = lambda x: torch.cat([independent.lrn(part, 1e-2) for part in x.chunk(2, dim=1)], dim=1)  # noqa: E731
    x = maps(3, 14, 5, 4).detach().contiguous(memory_format=memory_format).requires_grad_()
    assert_same_values_and_gradients(ours, each, x)


def test_pytorchs_lrn_is_the_reading_of_the_original_code_not_of_the_text():
    x = maps(2, 8, 3, 3)
    stock = torch.nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0)
    torch.testing.assert_close(LocalResponseNorm(5, 2.0, 1e-4, 0.75, "mean")(x), stock(x))
    assert not torch.allclose(LocalResponseNorm(5, 2.0, 1e-4, 0.75, "sum")(x), stock(x), rtol=1e-3)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("block_bytes", [1, 3200, 1 << 30])  # an image at a time, two and a rest, all at once
def test_spatial_norm_is_the_formula_with_zeros_outside(memory_format, block_bytes, threads, monkeypatch):
    monkeypatch.setattr(spatial, "BLOCK_BYTES", block_bytes)
    x = maps(3, 3, 9, 7).detach().contiguous(memory_format=memory_format).requires_grad_()
    assert_same_values_and_gradients(SpatialNorm(5, 1.0, 0.001, 0.75), independent.spatial, x)


def test_conv1s_last_window_hangs_over_three_pixels_of_zeros():
    images = maps(1, 3, 224, 224)
    weight = maps(2, 3, 11, 11)
    ours = Convolution(stride=4, pad=(0, 3))(images, weight, None)
    assert ours.shape == (1, 2, 55, 55)
    corner = torch.zeros(3, 11, 11, dtype=torch.float64)
    corner[:, :8, :8] = images[0, :, 216:, 216:]  # rows 216..223 are inside, 224..226 are not
    torch.testing.assert_close(ours[0, :, 54, 54], (weight * corner).sum((1, 2, 3)))


def test_dropout_is_the_authors_not_inverted():
    x, kept = maps(4, 6), torch.rand(4, 6) < 0.5
    layer = Dropout(0.5, inverted=False)
    torch.testing.assert_close(layer(x, kept), torch.where(kept, x, 0.0))
    torch.testing.assert_close(layer(x, None), x * 0.5)


def test_inverted_dropout_is_pytorchs():
    x, kept = maps(4, 6), torch.rand(4, 6) < 0.75
    layer = Dropout(0.25, inverted=True)
    torch.testing.assert_close(layer(x, kept), torch.where(kept, x / 0.75, 0.0))
    torch.testing.assert_close(layer(x, None), F.dropout(x, 0.25, training=False))


def test_initial_weights_have_the_tables_deviation_and_biases():
    tower = Tower(load_network("original_2012"), 0, seed=0)
    for name, std, bias in [("conv2", 0.01, 1), ("conv3", 0.03, 0), ("conv4", 0.03, 1), ("fc6", 0.01, 1)]:
        layer = tower.get_submodule(name)
        for key, tensor in layer.named_parameters():
            if key == "bias":
                assert torch.all(tensor == bias)
            else:
                # The deviation of n normal draws has itself a deviation of std / sqrt(2n).
                assert abs(tensor.std().item() - std) < 5 * std / (2 * tensor.numel()) ** 0.5


@pytest.mark.parametrize(
    ("towers", "layer", "fan_in"),
    [(2, "conv2", 48 * 25), (2, "conv3", 256 * 9), (4, "conv3", 256 * 9), (2, "fc8", 512), (4, "fc8", 512)],
)
def test_he_counts_the_inputs_from_all_towers(towers, layer, fan_in):
    std = (2 / fan_in) ** 0.5
    for name, weight in Tower(load_network("small", towers), 0, seed=0).get_submodule(layer).named_parameters():
        if name != "bias":
            assert abs(weight.std().item() - std) < 5 * std / (2 * weight.numel()) ** 0.5


def test_initial_weights_are_keyed_by_seed_layer_and_tower():
    network = load_network("small")
    tower = Tower(network, 0, seed=0).state_dict()
    assert all(torch.equal(value, tower[name]) for name, value in Tower(network, 0, seed=0).state_dict().items())
    assert not torch.equal(tower["conv2.weight"], Tower(network, 1, seed=0).state_dict()["conv2.weight"])
    assert not torch.equal(tower["conv2.weight"], Tower(network, 0, seed=1).state_dict()["conv2.weight"])
    assert not torch.equal(tower["fc7.own_weight"], tower["fc7.peer_weight"])


@pytest.mark.parametrize(
    ("size", "stride", "pad"),
    [(3, 2, (0, 1)), (2, 2, (0, 0)), (3, 1, (1, 1)), (3, 3, (1, 2)), (3, 2, (0, 2)), (3, 2, (2, 2)), (3, 2, (2, 0))],
)
@pytest.mark.parametrize("side", [6, 7, 24])
def test_pooling_takes_the_part_of_each_window_that_lies_inside(
    size: int, stride: int, pad: tuple[int, int], side: int
) -> None:
    maps = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side), dtype=torch.float64)
    starts = range(-pad[0], side + pad[1] - size + 1, stride)
    windows = [
        [maps[:, :, max(top, 0) : top + size, max(left, 0) : left + size].flatten(2) for left in starts]
        for top in starts
    ]
    largest = torch.stack([torch.stack([w.amax(2) for w in line], -1) for line in windows], -2)
    means = torch.stack([torch.stack([w.mean(2) for w in line], -1) for line in windows], -2)
    assert torch.equal(MaxPool(size, stride, pad)(maps), largest)
    torch.testing.assert_close(AveragePool(size, stride, pad)(maps), means, rtol=1e-12, atol=1e-12)
