"""Every placement computes what an independent single-device network computes: logits and every gradient."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, inf
from torch.linalg import vector_norm
from torch.nn import functional as F

import alexnet_mp
from alexnet_mp import load_network, to_single_device
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.table import Network
from alexnet_mp.parallel.links import LocalLink
from alexnet_mp.parallel.placement import Placement
from tests.support import independent
from tests.support.transports import over, run_over

SINGLE_DEVICE = {
    "paper": independent.paper,
    "original_2012": independent.original_2012,
    "small": lambda images, weights: independent.small(images, weights, towers=2),
    "small in 4": lambda images, weights: independent.small(images, weights, towers=4),
    "small in 1": lambda images, weights: independent.small(images, weights, towers=1),
}


def network(name: str) -> Network:
    preset, _, towers = name.partition(" in ")
    return load_network(preset, int(towers) if towers else None)


def randomized(model: TowerModel) -> TowerModel:
    """Every tensor of every tower its own random values, biases too, large enough for every layer to matter."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            generator = torch.Generator().manual_seed(sum(map(ord, name)))
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / fan_in**0.5)
    return model.eval()


def inputs(table: Network) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    images = 50 * torch.randn(2, *table.image, generator=generator, dtype=torch.float64)
    return images, torch.tensor([1, table.classes - 1])


def in_one_process(table: Network, devices: list[str]) -> TowerModel:
    kind = "two_devices" if len(set(devices)) > 1 else "simulated"
    on = {tower: torch.device(name) for tower, name in enumerate(devices)}
    link = LocalLink(list(on.values())) if len(devices) > 1 else None
    return TowerModel(table, Placement(kind, table.towers, on), link, seed=0, dtype=torch.float64)


def logits_and_gradients(model: TowerModel) -> dict[str, Tensor]:
    images, labels = inputs(model.network)
    logits = model(images)
    F.cross_entropy(logits, labels).backward()
    return {"logits": logits.detach(), **{name: p.grad.contiguous() for name, p in model.named_parameters()}}


def run_one_tower(name: str, folder: str) -> None:
    model = alexnet_mp.build_model(network(name), "distributed", dtype=torch.float64)
    save_file(logits_and_gradients(randomized(model)), Path(folder) / f"{model.placement.first_tower}.safetensors")


def assert_equal_to_1e_10(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        error = vector_norm(ours[name] - expected, inf) / vector_norm(expected, inf)
        assert error <= 1e-10, f"{name} differs by {error:.1e}"


def single_device_result(name: str, towers: TowerModel) -> dict[str, Tensor]:
    """Logits and gradients of the independent network with the weights of `towers`."""
    weights = to_single_device(towers.state_dict())
    for tensor in weights.values():
        tensor.requires_grad_()
    images, labels = inputs(towers.network)
    logits = SINGLE_DEVICE[name](images, weights)
    F.cross_entropy(logits, labels).backward()
    return {"logits": logits.detach(), **{key: tensor.grad for key, tensor in weights.items()}}


@pytest.mark.parametrize("name", ["paper", "original_2012", "small in 4"])
@over("gloo")
def test_all_placements_equal_an_independent_single_device_network(transport, name, tmp_path):
    table = network(name)
    simulated = randomized(in_one_process(table, ["cpu"] * table.towers))
    expected = single_device_result(name, simulated)
    spread = expected["logits"].std(0).mean() / expected["logits"].abs().mean()
    assert spread > 1e-3, "the images must matter to the logits"
    two_devices = in_one_process(table, [f"cpu:{t}" for t in range(table.towers)]).eval()
    two_devices.load_state_dict(simulated.state_dict())
    for model in (simulated, two_devices):
        result = logits_and_gradients(model)
        logits = {"logits": result.pop("logits")}
        assert_equal_to_1e_10(logits | to_single_device(result), expected)

    run_over(transport, table.towers, run_one_tower, name, str(tmp_path), deadline=200)
    gradients: dict[str, Tensor] = {}
    for tower in range(table.towers):
        result = load_file(tmp_path / f"{tower}.safetensors")
        torch.testing.assert_close(result.pop("logits"), expected["logits"], rtol=1e-10, atol=0)
        gradients |= result
    assert_equal_to_1e_10(to_single_device(gradients), {k: v for k, v in expected.items() if k != "logits"})


@pytest.mark.parametrize("name", ["small", "small in 1"])
def test_one_and_two_towers_equal_an_independent_single_device_network(name):
    table = network(name)
    model = randomized(in_one_process(table, ["cpu"] * table.towers))
    result = logits_and_gradients(model)
    logits = {"logits": result.pop("logits")}
    assert_equal_to_1e_10(logits | to_single_device(result), single_device_result(name, model))


@pytest.mark.parametrize(("preset", "single"), [("one_column", 48), ("ungrouped", 96)])
def test_networks_of_one_tower_are_ordinary_single_device_networks(preset, single):
    model = randomized(in_one_process(load_network(preset), ["cpu"]))
    weights = to_single_device(model.state_dict())
    assert weights["conv1.weight"].shape == (single, 3, 11, 11)
    images, _ = inputs(model.network)
    with torch.no_grad():
        assert_equal_to_1e_10({"logits": model(images)}, {"logits": independent.paper(images, weights, towers=1)})
