"""The networks beside AlexNet, as tables: their parameters from arithmetic, and what they compute from other code."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from alexnet_mp import build_model, from_single_device, load_network, to_single_device
from alexnet_mp.common.cli import compose
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import Network, parse_network
from alexnet_mp.training.config import parse_train_settings
from alexnet_mp.training.loss import LossOnEveryTower
from alexnet_mp.training.optimizer import make_optimizer
from tests.support import independent
from tests.support.foreign import assert_same_gradients, images_and_labels, leaves, randomized

# Maps in; kernels of 1x1, of 3x3's reduction, 3x3, of 5x5's reduction, 5x5, after pooling (arXiv 1409.4842, Table 1).
INCEPTION = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}
SEQUENTIAL: dict[str, Callable[..., Tensor]] = {
    "lenet5": independent.lenet5,
    "vgg16": independent.vgg16,
    "vgg19": independent.vgg19,
    "zfnet": independent.zfnet,
    "one_weird_trick": independent.one_weird_trick,
}


def conv(kernels: int, maps: int, size: int) -> int:
    return kernels * (maps * size * size + 1)


def fc(units: int, inputs: int) -> int:
    return units * (inputs + 1)


def inception(maps: int, one: int, reduce3: int, three: int, reduce5: int, five: int, pool: int) -> int:
    branch3 = conv(reduce3, maps, 1) + conv(three, reduce3, 3)
    branch5 = conv(reduce5, maps, 1) + conv(five, reduce5, 5)
    return conv(one, maps, 1) + branch3 + branch5 + conv(pool, maps, 1)


def auxiliary(maps: int) -> int:
    return conv(128, maps, 1) + fc(1024, 128 * 4 * 4) + fc(1000, 1024)


VGG16 = [3, 64, 64, 128, 128, *[256] * 3, *[512] * 6]
VGG19 = [3, 64, 64, 128, 128, *[256] * 4, *[512] * 8]
LENET5 = conv(6, 1, 5) + conv(16, 6, 5) + conv(120, 16, 5) + fc(84, 120) + fc(10, 84)
ZFNET = conv(96, 3, 7) + conv(256, 96, 5) + conv(512, 256, 3) + conv(1024, 512, 3) + conv(512, 1024, 3)
FULLY_CONNECTED = fc(4096, 4096) + fc(1000, 4096)
GOOGLENET = conv(64, 3, 7) + conv(64, 64, 1) + conv(192, 64, 3) + sum(inception(*each) for each in INCEPTION.values())
PARAMETERS = {
    "lenet5": (LENET5, 61_706),
    "zfnet": (ZFNET + fc(4096, 512 * 6 * 6) + FULLY_CONNECTED, 107_627_624),
    "vgg16": (
        sum(conv(kernels, maps, 3) for maps, kernels in pairwise(VGG16)) + fc(4096, 512 * 7 * 7) + FULLY_CONNECTED,
        138_357_544,
    ),
    "vgg19": (
        sum(conv(kernels, maps, 3) for maps, kernels in pairwise(VGG19)) + fc(4096, 512 * 7 * 7) + FULLY_CONNECTED,
        143_667_240,
    ),
    "googlenet": (GOOGLENET + fc(1000, 1024) + auxiliary(512) + auxiliary(528), 13_378_280),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_of_arithmetic_and_of_the_literature(name: str) -> None:
    by_arithmetic, published = PARAMETERS[name]
    assert network_cost(load_network(name)).parameters == by_arithmetic == published


def test_googlenet_without_its_auxiliary_classifiers_has_seven_million_parameters() -> None:
    main = network_cost(load_network("googlenet").without_auxiliaries())
    assert main.parameters == GOOGLENET + fc(1000, 1024) == 6_998_552
    nulls = {"aux4a": None, "aux4d": None}
    mapping = load_network("googlenet").to_mapping()
    assert network_cost(parse_network({**mapping, "layers": mapping["layers"] | nulls})).parameters == 6_998_552


def test_of_googlenets_rows_the_auxiliary_classifiers_are_for_training_only() -> None:
    costs = network_cost(load_network("googlenet"))
    counted = dict.fromkeys(("aux4a", "aux4d"), 0)
    for row in costs.rows:
        if row.training_only:
            counted[row.name.split("_")[0]] += row.parameters(0)
    assert counted == {"aux4a": auxiliary(512), "aux4d": auxiliary(528)}


@pytest.mark.parametrize(
    ("name", "row", "shape"),
    [
        ("googlenet", "pool2", (192, 28, 28)),
        ("googlenet", "inception3a", (256, 28, 28)),
        ("googlenet", "inception4e", (832, 14, 14)),
        ("googlenet", "inception5b", (1024, 7, 7)),
        ("googlenet", "aux4a_pool", (512, 4, 4)),
        ("googlenet", "aux4d_pool", (528, 4, 4)),
        ("googlenet", "pool5", (1024, 1, 1)),
        ("zfnet", "conv1", (96, 110, 110)),
        ("zfnet", "conv2", (256, 26, 26)),
        ("zfnet", "pool5", (512, 6, 6)),
        ("vgg16", "pool5", (512, 7, 7)),
        ("vgg19", "pool5", (512, 7, 7)),
        ("lenet5", "conv5", (120, 1, 1)),
        ("cifar10_13pct", "pool2", (64, 6, 6)),
        ("cifar10_18pct", "pool3", (64, 4, 4)),
    ],
)
def test_maps_are_as_large_as_published(name: str, row: str, shape: tuple[int, ...]) -> None:
    assert network_cost(load_network(name)).row(row).output_shape == shape


def smaller(name: str, image: list[int], divided_by: int, towers: int = 1) -> Network:
    """The same rows with fewer kernels and units, for smaller images in five classes."""

    def divide(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: each // divided_by if key in ("kernels", "units") else divide(each) for key, each in value.items()}

    mapping = divide(load_network(name).to_mapping())
    return parse_network({**mapping, "image": image, "classes": 5}).cut_into(towers)


@pytest.mark.parametrize("towers", [1, 2])
@pytest.mark.parametrize(
    ("name", "image", "divided_by"),
    [
        ("lenet5", [1, 32, 32], 1),
        ("vgg16", [3, 32, 32], 16),
        ("vgg19", [3, 32, 32], 16),
        ("zfnet", [3, 97, 97], 16),
        ("one_weird_trick", [3, 67, 67], 16),
    ],
)
def test_the_sequential_ones_compute_their_formula_in_one_tower_and_in_two(
    name: str, image: list[int], divided_by: int, towers: int
) -> None:
    model = randomized(smaller(name, image, divided_by, towers))
    single, (images, labels) = leaves(model), images_and_labels(model.network)
    needs_towers = name in ("zfnet", "one_weird_trick")
    expected = SEQUENTIAL[name](images, single, *([towers] if needs_towers else []))
    logits = model(images)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-12)
    F.cross_entropy(logits, labels).backward()
    F.cross_entropy(expected, labels).backward()
    assert_same_gradients(model, single)


@pytest.mark.parametrize(("name", "image", "divided_by"), [("lenet5", [1, 32, 32], 1), ("vgg16", [3, 32, 32], 16)])
def test_cut_in_two_they_are_the_network_of_one_tower(name: str, image: list[int], divided_by: int) -> None:
    one = randomized(smaller(name, image, divided_by))
    two = build_model(smaller(name, image, divided_by, towers=2), "simulated", "cpu", dtype=torch.float64).eval()
    two.load_state_dict(from_single_device(to_single_device(one.state_dict()), two.network))
    images, _ = images_and_labels(one.network)
    torch.testing.assert_close(two(images), one(images), rtol=1e-10, atol=1e-12)


def test_googlenet_its_auxiliary_losses_and_all_gradients_are_those_of_its_formula() -> None:
    model = randomized(smaller("googlenet", [3, 96, 96], 8))
    single, (images, labels) = leaves(model), images_and_labels(model.network)
    expected, of_auxiliaries = independent.googlenet(images, single)
    found: dict[str, Tensor] = {}
    (logits,) = model.tower_logits([images], auxiliary=found)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-12)
    assert found.keys() == of_auxiliaries.keys() == {"aux4a", "aux4d"}
    for name, each in of_auxiliaries.items():
        torch.testing.assert_close(found[name], each, rtol=1e-10, atol=1e-12)
    (loss,) = LossOnEveryTower(model)([images], [labels], 0)
    whole = F.cross_entropy(expected, labels)
    for each in of_auxiliaries.values():
        whole = whole + 0.3 * F.cross_entropy(each, labels)
    torch.testing.assert_close(loss, whole, rtol=1e-10, atol=0)
    loss.backward()
    whole.backward()
    assert_same_gradients(model, single)


def test_evaluation_does_not_compute_auxiliary_classifiers() -> None:
    model = build_model(smaller("googlenet", [3, 96, 96], 8), "simulated", "cpu")
    for name, module in model.local_towers()[0].named_children():
        if name.startswith("aux"):
            module.register_forward_hook(lambda *_: pytest.fail("an auxiliary classifier was computed"))
    model.eval()(torch.randn(1, 3, 96, 96))


def test_the_net_with_locally_connected_layers_is_its_formula() -> None:
    model = randomized(load_network("cifar10_11pct"))
    single, (images, labels) = leaves(model), images_and_labels(model.network, 3)
    logits, expected = model(images), independent.cifar10_11pct(images, single)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-12)
    F.cross_entropy(logits, labels).backward()
    F.cross_entropy(expected, labels).backward()
    assert_same_gradients(model, single)


@pytest.mark.parametrize("name", ["googlenet", "cifar10_11pct"])
def test_tables_and_weights_come_back_as_they_were(name: str) -> None:
    network = load_network(name)
    assert parse_network(network.to_mapping()) == network
    if name == "googlenet":
        network = smaller(name, [3, 96, 96], 8)
    state = build_model(network, "simulated", "cpu").state_dict()
    single = to_single_device(state)
    assert ("inception3a_3x3_reduce.weight" if name == "googlenet" else "local3.bias") in single
    back = from_single_device(single, network)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in state.items())


@pytest.mark.parametrize("name", ["cifar10_13pct", "cifar10_11pct", "cifar10_18pct"])
def test_the_authors_nets_train_two_steps_of_their_recipes(name: str) -> None:
    settings = parse_train_settings(compose("train", [f"experiment={name}"]))
    model = build_model(settings.network, "simulated", "cpu", seed=0).train()
    optimizer = make_optimizer(dict(model.towers.items()), settings.recipe)
    before = {key: tensor.clone() for key, tensor in model.named_parameters()}
    images = 60 * torch.randn(4, *settings.network.image, generator=torch.Generator().manual_seed(0))
    for step in range(2):
        optimizer.zero_grad()
        torch.autograd.backward(LossOnEveryTower(model)([images], [torch.arange(4)], step))
        optimizer.step()
    for key, parameter in model.named_parameters():
        assert torch.isfinite(parameter).all() and not torch.equal(parameter, before[key]), key


def test_the_authors_rates_are_those_of_their_files() -> None:
    recipes = {n: parse_train_settings(compose("train", [f"experiment=cifar10_{n}pct"])).recipe for n in (11, 13, 18)}
    decay = {n: {} for n in recipes}
    for n, recipe in recipes.items():
        for layer in ("conv1", "conv2", "conv3" if n == 18 else "local3", "fc10"):
            rates = recipe.rates(layer, "weights")
            assert (rates.learning_rate, recipe.rates(layer, "biases").learning_rate) == (0.001, 0.002)
            decay[n][layer] = rates.weight_decay
    assert decay == {
        11: {"conv1": 0, "conv2": 0, "local3": 0.004, "fc10": 0.01},
        13: {"conv1": 0, "conv2": 0, "local3": 0.004, "fc10": 0.004},
        18: {"conv1": 0.004, "conv2": 0.004, "conv3": 0.004, "fc10": 1},
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lenet5", "zfnet", "vgg16", "googlenet", "one_weird_trick"])
def test_at_full_size_each_goes_forward_and_backward(name: str) -> None:
    network = load_network(name)
    model = build_model(network, "simulated", "cpu").train()
    (loss,) = LossOnEveryTower(model)([torch.randn(1, *network.image)], [torch.tensor([0])], 0)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(parameter.grad is not None for parameter in model.parameters())
