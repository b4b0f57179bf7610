"""The same training run wherever it runs: five steps with dropout on, under every placement."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from alexnet_mp import load_network
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel.crossing import to_towers
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.links import LocalLink
from alexnet_mp.parallel.mesh import make_mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.training.loss import LossOnEveryTower, data_parallel
from alexnet_mp.training.optimizer import make_optimizer
from alexnet_mp.training.recipe import Rates, Recipe
from tests.support.transports import over, run_over

STEPS, BATCH = 5, 8
RECIPE = Recipe("test", BATCH, 1, 0.9, Rates(0.01, 0.0005), Rates(0.02, 0.0))


def train_five_steps(towers: int, placement_kind: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The losses and, for the towers of this process, activations' logits, gradients and weights of every step."""
    launch = Launch.from_environment(*_world())
    network = load_network("small", towers)
    placement = choose_placement(placement_kind, "cpu", towers, launch)
    mesh = make_mesh(placement, timeout_seconds=30)
    model = TowerModel(network, placement, mesh.link(), seed=1, dtype=dtype)
    compute_losses = data_parallel(LossOnEveryTower(model), mesh)
    devices = list(placement.devices.values())
    optimizer = make_optimizer(dict(model.towers.items()), RECIPE)
    size = BATCH // placement.replicas
    mine = slice(placement.replica * size, (placement.replica + 1) * size)
    record: dict[str, Tensor] = {}
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(BATCH, *network.image, generator=generator, dtype=dtype)
        labels = torch.randint(0, 10, (BATCH,), generator=generator)
        optimizer.zero_grad()
        losses = compute_losses(to_towers(images[mine], devices), to_towers(labels[mine], devices), step)
        torch.autograd.backward(losses)
        record |= {f"{step} gradient {name}": p.grad.clone() for name, p in model.named_parameters()}
        optimizer.step()
        record |= {f"{step} weight {name}": p.detach().clone() for name, p in model.named_parameters()}
        total = mesh.sum_over_replicas(losses[0].detach().double()) / placement.replicas
        record[f"{step} loss"] = total
    return {name: tensor.contiguous() for name, tensor in record.items()}


def _world() -> tuple[int, int]:
    distributed = torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)


def save_five_steps(folder: str, towers: int, placement_kind: str, dtype: torch.dtype) -> None:
    save_file(train_five_steps(towers, placement_kind, dtype), Path(folder) / f"{_world()[0]}.safetensors")


def in_processes(transport: str, count: int, folder: Path, *arguments) -> list[dict[str, Tensor]]:
    run_over(transport, count, save_five_steps, str(folder), *arguments)
    return [load_file(folder / f"{rank}.safetensors") for rank in range(count)]


@pytest.mark.parametrize("towers", [2, 4])
@over("gloo", "host")
def test_one_process_a_tower_trains_bit_equal_to_one_process(transport, towers, tmp_path):
    expected = train_five_steps(towers, "simulated", torch.float32)
    assert len({expected[f"{step} loss"].item() for step in range(STEPS)}) == STEPS
    results = in_processes(transport, towers, tmp_path, towers, "distributed", torch.float32)
    assert set().union(*results) == expected.keys()
    for result in results:
        for name, tensor in result.items():
            assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize(
    ("towers", "kind", "processes"), [(2, "distributed", 4), (2, "simulated", 2), (1, "distributed", 2)]
)
@over("gloo")
def test_two_replicas_train_equal_to_one_on_the_same_global_batch(transport, towers, kind, processes, tmp_path):
    expected = train_five_steps(towers, "simulated", torch.float64)
    for result in in_processes(transport, processes, tmp_path, towers, kind, torch.float64):
        for name, tensor in result.items():
            error = (tensor - expected[name]).abs().max() / expected[name].abs().max()
            assert error <= 1e-10, f"{name} differs by {error:.1e}"


def test_dropout_was_on(monkeypatch):
    with_dropout = train_five_steps(2, "simulated", torch.float32)
    without = replace(
        load_network("small"), rows={n: r for n, r in load_network("small").rows.items() if "drop" not in n}
    )
    monkeypatch.setitem(train_five_steps.__globals__, "load_network", lambda *_: without)
    assert train_five_steps(2, "simulated", torch.float32)["0 loss"] != with_dropout["0 loss"]


def test_bf16_is_float32_to_the_precision_of_bfloat16_with_weights_in_float32():
    network = load_network("small")
    placement = choose_placement("simulated", "cpu", 2, Launch())
    images = torch.randn(BATCH, *network.image, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(BATCH)
    gradients, losses, sent = [], [], []
    for autocast in (None, torch.bfloat16):
        model = TowerModel(network, placement, LocalLink([torch.device("cpu")] * 2), seed=1)
        found = LossOnEveryTower(model, autocast)([images] * 2, [labels] * 2, 0)
        torch.autograd.backward(found)
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
        losses.append(found[0].item())
        sent.append(model.link.traffic.sent_by(0))
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    # 2^-8 is half a unit in bfloat16's last place; the products of eight layers add up.
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=8 * 2**-8)
    # Gradients differ by more: where two values are one in bfloat16, pooling and ReLU choose otherwise.
    assert torch.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.95
    # Activations are bfloat16 themselves, so they cross as they are; logits are summed in float32.
    logits = 4 * network.classes * BATCH
    assert 2 * (sent[1] - logits) == sent[0] - logits
