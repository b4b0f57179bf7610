"""Batch normalization as a row of the table: against its formula, in every placement, in checkpoints and conversion."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from alexnet_mp import (
    ConfigurationError,
    build_model,
    from_single_device,
    load_network,
    to_single_device,
)
from alexnet_mp.checkpoint.convert.dropout import dropout_scales
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.rows import BatchNorm, LocalResponseNorm, Tanh
from alexnet_mp.network.table import Network, parse_network
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.mesh import make_mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.training.nonfinite import nonfinite_state
from alexnet_mp.training.optimizer import make_optimizer
from alexnet_mp.training.recipe import Rates, Recipe
from tests.support import independent
from tests.support.transports import over, run_over

RECIPE = Recipe("test", 4, 1, 0.9, Rates(0.05, 0.0005), Rates(0.02, 0.0001))


def without_dropout() -> Network:
    table = load_network("cifar10_batchnorm")
    return replace(table, rows={name: row for name, row in table.rows.items() if "dropout" not in name})


def randomize(model: TowerModel) -> TowerModel:
    """Every tensor its own values, running statistics too, so that none can be left out unnoticed."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            generator = torch.Generator().manual_seed(sum(map(ord, name)))
            drawn = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
            if "norm" in name:
                tensor.copy_(0.5 + drawn.abs() if name.endswith(("weight", "running_var")) else drawn)
    return model


def images_and_labels(count: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, 28, 28, generator=generator, dtype=torch.float64), torch.arange(count)


@pytest.mark.parametrize("training", [True, False])
def test_two_towers_equal_the_formula_on_one_device(training):
    model = randomize(build_model(without_dropout(), "simulated", "cpu", seed=2, dtype=torch.float64)).train(training)
    single = {name: tensor.clone() for name, tensor in to_single_device(model.state_dict()).items()}
    for name, tensor in single.items():
        tensor.requires_grad_("running" not in name)
    images, labels = images_and_labels()
    logits = model(images)
    F.cross_entropy(logits, labels).backward()
    expected = independent.cifar10_batchnorm(images, single, training)
    F.cross_entropy(expected, labels).backward()
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=0)
    gradients = to_single_device({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients.items():
        if training and name.split(".")[0] in {f"conv{n}" for n in range(1, 6)} | {"fc6", "fc7"} and "bias" in name:
            assert gradient.abs().max() < 1e-12, f"{name} is followed by its mean's subtraction"
            continue
        scale = single[name].grad.abs().max()
        torch.testing.assert_close(gradient, single[name].grad, rtol=0, atol=1e-10 * scale.item(), msg=name)


def test_running_statistics_take_a_tenth_of_each_batch():
    model = build_model(without_dropout(), "simulated", "cpu", dtype=torch.float64).train()
    images, _ = images_and_labels()
    model(images)
    state = model.state_dict()
    maps = F.conv2d(images, state["towers.1.conv1.weight"], state["towers.1.conv1.bias"], padding=2)
    mean, variance = maps.mean((0, 2, 3)), maps.var((0, 2, 3), unbiased=True)
    torch.testing.assert_close(state["towers.1.norm1.running_mean"], 0.1 * mean, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(state["towers.1.norm1.running_var"], 0.9 + 0.1 * variance, rtol=1e-10, atol=0)


def three_steps(placement_kind: str, share_statistics: bool = False) -> dict[str, Tensor]:
    distributed = torch.distributed.is_initialized()
    launch = Launch.from_environment(
        *((torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1))
    )
    network = load_network("cifar10_batchnorm")
    placement = choose_placement(placement_kind, "cpu", 2, launch)
    mesh = make_mesh(placement, timeout_seconds=30)
    model = TowerModel(network, placement, mesh.link(), seed=1).train()
    optimizer = make_optimizer(dict(model.towers.items()), RECIPE)
    images, labels = images_and_labels(8)
    mine = slice(placement.replica * 4, placement.replica * 4 + 4)
    for step in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(images[mine].float(), step), labels[mine]).backward()
        optimizer.step()
    if share_statistics:
        mesh.from_replica_0(list(model.buffers()))
    return model.state_dict()


def save_three_steps(folder: str, *arguments) -> None:
    state = {name: tensor.contiguous() for name, tensor in three_steps(*arguments).items()}
    save_file(state, Path(folder) / f"{torch.distributed.get_rank()}.safetensors")


def in_two_processes(transport: str, folder: Path, *arguments) -> list[dict[str, Tensor]]:
    folder.mkdir()
    run_over(transport, 2, save_three_steps, str(folder), *arguments)
    return [load_file(folder / f"{rank}.safetensors") for rank in range(2)]


@over("gloo")
def test_two_processes_train_bit_equal_to_one_with_batch_normalization(transport, tmp_path):
    expected = three_steps("simulated")
    states = in_two_processes(transport, tmp_path / "two", "distributed")
    assert states[0].keys() | states[1].keys() == expected.keys()
    for state in states:
        assert any("running_var" in name for name in state)
        for name, tensor in state.items():
            assert torch.equal(tensor, expected[name]), name


@over("gloo")
def test_replicas_take_the_running_statistics_of_replica_0(transport, tmp_path):
    apart = in_two_processes(transport, tmp_path / "apart", "simulated")
    together = in_two_processes(transport, tmp_path / "together", "simulated", True)
    name = "towers.1.norm3.running_mean"
    assert not torch.equal(apart[0][name], apart[1][name])
    for name, tensor in apart[0].items():
        if "running" in name:
            assert torch.equal(together[0][name], tensor), name
            assert torch.equal(together[1][name], tensor), name


def test_scale_and_shift_learn_like_biases_and_never_decay():
    model = build_model("cifar10_batchnorm", "simulated", "cpu")
    groups = {(g["layer"], g["kind"]): g for g in make_optimizer(dict(model.towers.items()), RECIPE).param_groups}
    assert ("norm1", "weights") not in groups
    assert (groups["norm1", "biases"]["lr"], groups["norm1", "biases"]["weight_decay"]) == (0.02, 0)
    assert len(groups["norm1", "biases"]["params"]) == 4  # weight and bias on two towers
    assert groups["conv1", "biases"]["weight_decay"] == 0.0001


def test_checkpoint_names_and_counts():
    names = build_model("cifar10_batchnorm", "simulated", "cpu").state_dict().keys()
    assert {name.split(".")[3] for name in names if ".norm4." in name} == {
        "weight",
        "bias",
        "running_mean",
        "running_var",
    }
    cost = network_cost(load_network("cifar10_batchnorm"))
    assert [cost.row(f"norm{n}").parameters(1) for n in range(1, 8)] == [64, 128, 256, 256, 256, 512, 512]
    model = build_model("cifar10_batchnorm", "simulated", "cpu")
    assert sum(p.numel() for p in model.parameters()) == cost.parameters


def test_a_round_trip_through_one_device_is_bit_equal():
    state = randomize(build_model("cifar10_batchnorm", "simulated", "cpu")).state_dict()
    back = from_single_device(to_single_device(state), load_network("cifar10_batchnorm"))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("between", [BatchNorm(), LocalResponseNorm(5, 2, 1e-4, 0.75, "sum"), Tanh()])
def test_the_other_dropout_is_refused_where_a_row_follows_that_does_not_scale_with_its_input(between):
    table = load_network("cifar10_batchnorm")
    assert dropout_scales(table, "inverted") == {}
    assert dropout_scales(table, "authors") == {"fc7.weight": 2.0}
    rows = {}
    for name, row in table.rows.items():
        rows[name] = row
        if name == "dropout6":
            rows["between"] = between
    with pytest.raises(ConfigurationError, match=f"between, {between.kind}, reads what comes out of dropout"):
        dropout_scales(replace(table, rows=rows), "authors")


@pytest.mark.parametrize(("key", "value", "must"), [("momentum", 0, "more than 0"), ("epsilon", 0.0, "be positive")])
def test_impossible_numbers_are_refused(key, value, must):
    mapping = load_network("cifar10_batchnorm").to_mapping()
    mapping["layers"]["norm1"][key] = value
    with pytest.raises(ConfigurationError, match=must):
        parse_network(mapping)


def test_running_statistics_that_are_not_finite_are_found_where_weights_and_logits_still_are():
    model = randomize(build_model(without_dropout(), "simulated", "cpu", seed=2)).train()
    assert nonfinite_state(model) == []
    images = images_and_labels()[0].float() * 1e22  # the square of which float32 does not hold
    assert torch.isfinite(model(images)).all()
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    first = next(name for name, row in model.network.rows.items() if isinstance(row, BatchNorm))
    assert nonfinite_state(model)[0] == (0, first)
