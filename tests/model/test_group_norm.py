"""Group normalization as a row of the table: against its formula, tower by tower, on one device and in ONNX."""

from math import gcd, prod
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from alexnet_mp import ConfigurationError, build_model, from_single_device, single_device_model, to_single_device
from alexnet_mp.checkpoint.convert.onnx import save_onnx
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import Network, load_network, parse_network
from alexnet_mp.training.optimizer import make_optimizer
from alexnet_mp.training.recipe import Rates, Recipe


def group_norm(maps: Tensor, weight: Tensor, bias: Tensor, groups: int, epsilon: float = 1e-5) -> Tensor:
    """Wu and He 2018, equations 1, 2 and 7, in plain loops over images and groups."""
    images, channels, *_ = maps.shape
    normalized = torch.empty_like(maps)
    for image in range(images):
        for group in range(groups):
            of_group = slice(group * channels // groups, (group + 1) * channels // groups)
            values = maps[image, of_group]
            mean = values.sum() / values.numel()
            variance = (values - mean).square().sum() / values.numel()
            normalized[image, of_group] = (values - mean) / (variance + epsilon).sqrt()
    return normalized * weight.view(-1, 1, 1) + bias.view(-1, 1, 1)


def network(groups: int, towers: int = 2) -> Network:
    mapping = load_network("small").to_mapping()
    norms = {f"lrn{n}": {"kind": "group_norm", "groups": each} for n, each in ((1, groups), (2, gcd(groups, 128)))}
    return parse_network({**mapping, "layers": {**mapping["layers"], **norms}}).cut_into(towers)


def randomized(table: Network):
    model = build_model(table, dtype=torch.float64).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lrn" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name) + int(name.split(".")[1])))
    return model


def images_of(table: Network) -> Tensor:
    return torch.randn(3, *table.image, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("groups", [1, 8, 48])  # layer normalization, between, instance normalization
def test_every_tower_normalizes_its_own_maps_by_the_formula(groups: int) -> None:
    model = randomized(network(groups))
    maps = torch.randn(3, 48, 7, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for tower in model.local_towers():
        layer = tower.get_submodule("lrn1")
        expected = group_norm(maps, layer.weight, layer.bias, groups)
        torch.testing.assert_close(layer(maps), expected, rtol=1e-10, atol=1e-12)
    first, second = (tower.get_submodule("lrn1") for tower in model.local_towers())
    assert not torch.equal(first.weight, second.weight)


@pytest.mark.parametrize("groups", [1, 8])
def test_towers_and_one_device_have_the_same_logits(groups: int) -> None:
    model = randomized(network(groups))
    single = to_single_device(model.state_dict())
    whole = single_device_model(model.network).double().eval()
    whole.load_state_dict(single)
    images = images_of(model.network)
    torch.testing.assert_close(whole(images), model(images), rtol=1e-10, atol=1e-12)
    again = from_single_device(single, model.network)
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


def test_onnx_has_the_towers_logits(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = randomized(network(8))
    save_onnx(tmp_path / "small.onnx", model.state_dict(), model.network, "authors")
    images = images_of(model.network).float()
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(found, model.float()(images).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_it_learns_two_numbers_a_map_which_never_decay() -> None:
    table, plain = network(8), load_network("small")
    maps = [network_cost(plain).row(name).output_shape[0] for name in ("lrn1", "lrn2")]
    assert network_cost(table).parameters == network_cost(plain).parameters + 2 * 2 * sum(maps)
    cost = network_cost(table).row("lrn1")
    assert cost.output_shape == cost.input_shape and prod(cost.parameters_of_a_tower["weight"]) == maps[0]
    towers = dict(build_model(table).towers.items())
    groups = make_optimizer(towers, Recipe("r", 4, 1, 0.9, Rates(0.1, 0.5), Rates(0.2, 0.5))).param_groups
    of_norm = [group for group in groups if group["layer"] == "lrn1"]
    assert [(group["lr"], group["weight_decay"], len(group["params"])) for group in of_norm] == [(0.2, 0.0, 4)]


def test_groups_that_do_not_divide_the_maps_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="lrn1: 7 groups do not divide the 48 maps of a tower"):
        network(7)
