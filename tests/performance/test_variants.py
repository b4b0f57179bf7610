"""The benchmark's variants train the same thing where they claim to: one step's loss and gradients, in float64."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet_mp import ConfigurationError, Network, build_model, from_single_device, load_network, to_single_device
from alexnet_mp.checkpoint.convert.dropout import dropout_scales
from alexnet_mp.model.single_device import (
    OUR_PARTS,
    STOCK_PARTS,
    one_column_network,
    single_network,
    ungrouped_network,
)
from alexnet_mp.network.rows import Dropout
from alexnet_mp.network.table import parse_network
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.mesh import Mesh, make_mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.performance.benchmark.measurement import Task
from alexnet_mp.performance.benchmark.variants.ours import paper_sgd
from alexnet_mp.performance.benchmark.variants.pipeline import (
    balanced_cuts,
    build_part,
    check_pipeline,
    cuttable_blocks,
    microbatches,
    pipeline_train_step,
    time_blocks,
)
from alexnet_mp.performance.benchmark.variants.replicas import check_replicas, replica_train_step, stock_sgd
from alexnet_mp.performance.benchmark.variants.train_step import TrainStep
from tests.support import independent
from tests.support.processes import run_processes

BATCH = 8
SMALL = replace(load_network("small"), image=(3, 32, 32))


def without_dropout(network: Network) -> Network:
    return replace(network, rows={name: row for name, row in network.rows.items() if not isinstance(row, Dropout)})


def original_2012_in_small() -> Network:
    table = load_network("original_2012").to_mapping()
    table["image"], table["classes"] = [3, 67, 67], 10
    for layer in ("fc6", "fc7"):
        table["layers"][layer]["units"] = 16
    return parse_network(table)


def batch(network: Network) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    images = 20 * torch.randn(BATCH, *network.image, generator=generator, dtype=torch.float64)
    return images, torch.randint(network.classes, (BATCH,), generator=generator)


@torch.no_grad()
def randomized(model: nn.Module) -> nn.Module:
    """Every parameter its own values, by its name, so that parts of a network have those of the whole."""
    for name, parameter in model.double().named_parameters():
        generator = torch.Generator().manual_seed(sum(map(ord, name)))
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / fan_in**0.5)
    return model


def loss_and_gradients(model: nn.Module, network: Network) -> dict[str, Tensor]:
    images, labels = batch(network)
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    return {"loss": loss.detach(), **{name: p.grad for name, p in model.named_parameters()}}


def assert_equal(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float = 1e-10) -> None:
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        error = np.abs(np.asarray(ours[name]) - np.asarray(expected)).max() / np.abs(np.asarray(expected)).max()
        assert error <= tolerance, f"{name} differs by {error:.1e}"


def test_our_whole_network_is_an_independent_single_device_network() -> None:
    # In evaluation, where the authors' dropout halves.
    model = randomized(single_network(SMALL, OUR_PARTS)).eval()
    weights = {name: tensor.detach().clone().requires_grad_() for name, tensor in model.named_parameters()}
    images, labels = batch(SMALL)
    loss = F.cross_entropy(independent.small(images, weights, towers=2), labels)
    loss.backward()
    expected = {"loss": loss.detach(), **{name: tensor.grad for name, tensor in weights.items()}}
    assert_equal(loss_and_gradients(model, SMALL), expected)


@pytest.mark.parametrize("table", [SMALL, original_2012_in_small(), load_network("small", 4)], ids=lambda n: n.name)
def test_stock_ours_and_the_towers_have_the_same_loss_and_gradients(table: Network) -> None:
    network = without_dropout(table)
    expected = loss_and_gradients(randomized(single_network(network, STOCK_PARTS)), network)
    assert_equal(loss_and_gradients(randomized(single_network(network, OUR_PARTS)), network), expected)
    towers = build_model(network, dtype=torch.float64)
    towers.load_state_dict(from_single_device(stock_state(network), network))
    found = loss_and_gradients(towers, network)
    assert_equal({"loss": found.pop("loss"), **to_single_device(found)}, expected)


def stock_state(network: Network) -> dict[str, Tensor]:
    return randomized(single_network(network, STOCK_PARTS)).state_dict()


def test_our_whole_networks_dropout_is_the_authors_in_training() -> None:
    network = SMALL
    torch.manual_seed(0)
    layer = single_network(network, OUR_PARTS).get_submodule("dropout6")
    outputs = layer(torch.ones(64, 512))
    # 32,768 fair coins, not doubled: the mean is within 0.5 +- 5 standard deviations of 0.5 / sqrt(32768).
    assert set(outputs.unique().tolist()) == {0.0, 1.0}
    assert abs(outputs.mean().item() - 0.5) < 5 * 0.5 / 32768**0.5
    assert torch.equal(layer.eval()(torch.ones(1, 512)), torch.full((1, 512), 0.5))


def task(network: Network, name: str) -> Task:
    return Task(name, network, BATCH, 1, 0, False, "cpu", 1, 0, 30.0)


def one_step(train_step: TrainStep, model: nn.Module, network: Network) -> dict[str, Any]:
    model.zero_grad()
    images, labels = batch(network)
    before = train_step.sent()
    losses = train_step.forward(*train_step.on_devices(images, labels), 0)
    if not train_step.together:
        torch.autograd.backward(losses)
    sent = train_step.sent()
    return {
        "losses": [loss.item() for loss in losses],
        "gradients": {name: parameter.grad.numpy().copy() for name, parameter in model.named_parameters()},
        "all_reduced": sent.all_reduced - before.all_reduced,
        "pipeline": sent.pipeline - before.pipeline,
    }


def data_parallel_step(mesh: Mesh, ours: bool) -> dict[str, Any]:
    network = without_dropout(SMALL)
    model = randomized(single_network(network, OUR_PARTS if ours else STOCK_PARTS))
    optimizer = (paper_sgd if ours else stock_sgd)(model, task(network, ""))
    return one_step(replica_train_step(model, optimizer, mesh), model, network)


def pipelined_step(mesh: Mesh, cut: int) -> dict[str, Any]:
    network = without_dropout(SMALL)
    blocks = cuttable_blocks(network)
    part = randomized(build_part(network, blocks[:cut] if mesh.placement.replica == 0 else blocks[cut:]))
    train_step = pipeline_train_step(part, stock_sgd(part, task(network, "")), mesh, BATCH)
    one_step(train_step, part, network)  # the first finds out the shapes
    return one_step(train_step, part, network)


def steps_of_one_process() -> dict[str, dict[str, Any]]:
    rank = torch.distributed.get_rank()
    mesh = make_mesh(choose_placement("simulated", "cpu", 1, Launch(rank, 2, rank, 2)), 30)
    return {
        "stock": data_parallel_step(mesh, ours=False),
        "ours": data_parallel_step(mesh, ours=True),
        "after pool1": pipelined_step(mesh, 3),
        "after pool2": pipelined_step(mesh, 6),
    }


@pytest.fixture(scope="module")
def two_processes() -> list[dict[str, dict[str, Any]]]:
    return run_processes(2, steps_of_one_process)


@pytest.fixture(scope="module")
def on_one_device() -> dict[str, Tensor]:
    network = without_dropout(SMALL)
    return loss_and_gradients(randomized(single_network(network, STOCK_PARTS)), network)


@pytest.mark.parametrize("name", ["stock", "ours"])
def test_two_data_parallel_processes_have_the_gradients_of_one_on_the_whole_batch(
    name: str, two_processes: list[dict[str, dict[str, Any]]], on_one_device: dict[str, Tensor]
) -> None:
    expected = {key: value for key, value in on_one_device.items() if key != "loss"}
    replicas = [steps[name] for steps in two_processes]
    for replica in replicas:
        assert_equal(replica["gradients"], expected)
        # Every parameter's gradient once, in eight bytes.
        assert replica["all_reduced"] == 8 * sum(gradient.numel() for gradient in expected.values())
    mean = sum(replica["losses"][0] for replica in replicas) / 2
    assert mean == pytest.approx(on_one_device["loss"].item(), rel=1e-10)
    assert replicas[0]["losses"] != replicas[1]["losses"]  # each has images of its own


@pytest.mark.parametrize(("cut", "floats"), [("after pool1", 96 * 15 * 15), ("after pool2", 256 * 7 * 7)])
def test_two_parts_of_a_pipeline_have_the_gradients_of_one_device(
    cut: str, floats: int, two_processes: list[dict[str, dict[str, Any]]], on_one_device: dict[str, Tensor]
) -> None:
    front, back = (steps[cut] for steps in two_processes)
    expected = {key: value for key, value in on_one_device.items() if key != "loss"}
    assert_equal({**front["gradients"], **back["gradients"]}, expected)
    assert front["losses"] == []
    assert back["losses"] == [pytest.approx(on_one_device["loss"].item(), rel=1e-10)]
    # What crosses the cut, in eight bytes: activations to the back, as many gradients to the front.
    assert front["pipeline"] == back["pipeline"] == 8 * BATCH * floats


def test_a_pipeline_is_not_cut_before_a_relu_which_overwrites_its_input() -> None:
    blocks = cuttable_blocks(load_network("paper"))
    assert blocks[:4] == [["conv1", "relu1"], ["lrn1"], ["pool1"], ["conv2", "relu2"]]
    assert [name for block in blocks for name in block] == list(load_network("paper").rows)


def test_every_block_is_timed() -> None:
    network = SMALL
    seconds = time_blocks(network, cuttable_blocks(network), torch.randn(2, *network.image))
    assert len(seconds) == len(cuttable_blocks(network)) and min(seconds) > 0


@pytest.mark.parametrize(
    ("costs", "parts", "cuts"),
    [
        ([1, 1, 1, 1], 2, [0, 2, 4]),
        ([5, 1, 1, 1], 2, [0, 1, 4]),
        ([1, 2, 3, 4, 5], 3, [0, 3, 4, 5]),  # 6, 4, 5
        ([9, 1], 2, [0, 1, 2]),
        ([3, 2, 1], 1, [0, 3]),
    ],
)
def test_cuts_make_the_dearest_part_as_cheap_as_can_be(costs: list[float], parts: int, cuts: list[int]) -> None:
    assert balanced_cuts(costs, parts) == cuts


def test_microbatches_divide_the_batch_and_fill_the_pipeline() -> None:
    assert [microbatches(size, 2) for size in (64, 12, 6, 7, 2, 3, 1)] == [4, 4, 3, 0, 2, 3, 0]


def test_what_cannot_be_shared_is_refused_with_the_number_that_can() -> None:
    with pytest.raises(ConfigurationError, match="batch_size=7 cannot be shared equally by 2"):
        check_replicas(SMALL, 2, 7)
    with pytest.raises(ConfigurationError, match="use a multiple of 2"):
        check_pipeline(SMALL, 2, 11)
    with pytest.raises(ConfigurationError, match="one process"):
        check_replicas(load_network("ungrouped"), 1, 8)
    with pytest.raises(ConfigurationError, match="can be cut into 15 parts, not into 16"):
        check_pipeline(load_network("small", 16), 16, 64)


@pytest.mark.parametrize(("preset", "derive"), [("one_column", one_column_network), ("ungrouped", ungrouped_network)])
def test_networks_of_one_tower_that_are_derived_from_the_papers_are_the_presets(preset: str, derive: Any) -> None:
    assert derive(load_network("paper")) == load_network(preset)


def test_one_column_of_four_towers_is_one_column_of_two() -> None:
    assert one_column_network(load_network("paper", 4)) == one_column_network(load_network("paper"))


@pytest.mark.parametrize("network", [load_network("small"), original_2012_in_small()], ids=lambda n: n.name)
def test_stock_network_computes_what_the_towers_compute(network: Network) -> None:
    towers = build_model(network, dtype=torch.float64).eval()
    stock = single_network(network, STOCK_PARTS).double().eval()
    # Its dropout is inverted, so the same function has scaled weights after dropout rows.
    scales = dropout_scales(network, "inverted")
    weights = to_single_device(towers.state_dict())
    stock.load_state_dict({name: tensor * scales.get(name, 1.0) for name, tensor in weights.items()})
    images = 64 * torch.randn(2, *network.image, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(stock(images), towers(images), rtol=1e-10, atol=0)
