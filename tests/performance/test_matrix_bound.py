"""The matrix-only bound: its products are those of a tower's step, no more and no less."""

import pytest
import torch

from alexnet_mp import load_network
from alexnet_mp.performance.benchmark.matrix_bound import Clock, MatrixProduct, matrix_layers, time_product


def test_both_ways_of_every_layer_have_the_multiply_adds_of_the_table() -> None:
    # Half of the network's 724 M multiply-adds: kernels x inputs x size² x positions, and the fully-connected layers.
    expected = {
        "conv1": 48 * 3 * 11**2 * 55**2,
        "conv2": 128 * 48 * 5**2 * 27**2,
        "conv3": 192 * 256 * 3**2 * 13**2,
        "conv4": 192 * 192 * 3**2 * 13**2,
        "conv5": 128 * 192 * 3**2 * 13**2,
        "fc6": 2048 * 256 * 6**2,
        "fc7": 2048 * 4096,
        "fc8": 1000 * 2048,
    }
    layers = matrix_layers(load_network("paper"))
    assert [layer.name for layer in layers] == list(expected)
    for layer in layers:
        for products in layer.ways.values():
            assert sum(product.multiply_adds for product in products) == expected[layer.name]


def test_what_reads_both_towers_is_two_products_or_one() -> None:
    layers = {layer.name: layer.ways for layer in matrix_layers(load_network("paper"))}
    assert list(layers["conv2"]) == ["whole"]
    assert layers["conv3"] == {
        "own and peers": (MatrixProduct((128, 13, 13), (192, 128, 3, 3), 1, 1),) * 2,
        "joined": (MatrixProduct((256, 13, 13), (192, 256, 3, 3), 1, 1),),
    }
    of_four = {layer.name: layer.ways for layer in matrix_layers(load_network("paper", 4))}
    assert [product.weight for product in of_four["fc7"]["own and peers"]] == [(1024, 1024), (1024, 3072)]


def test_the_image_needs_no_gradient_and_a_lopsided_padding_is_in_the_input() -> None:
    first, second, *_ = matrix_layers(load_network("paper"))
    assert first.passes == ("forward", "weight gradient")
    assert first.ways == {"whole": (MatrixProduct((3, 227, 227), (48, 3, 11, 11), 4, 0),)}
    assert second.passes == ("forward", "input gradient", "weight gradient")


@pytest.mark.parametrize("product", [MatrixProduct((3, 9, 9), (4, 3, 3, 3), 2, 1), MatrixProduct((6,), (5, 6))])
def test_every_pass_is_timed_and_names_its_way(product: MatrixProduct) -> None:
    clock = Clock(torch.device("cpu"), lambda seconds: seconds)
    found = time_product(product, 2, ("forward", "input gradient", "weight gradient"), clock)
    for seconds, way in found.values():
        assert seconds > 0
        assert way in ("NCHW", "channels-last", "rows", "columns")
