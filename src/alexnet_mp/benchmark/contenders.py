"""The contenders: ways to train the same network, each a row of the list at the end of this file."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F

from alexnet_mp.allocator import keep_large_blocks
from alexnet_mp.benchmark.measurement import Task
from alexnet_mp.benchmark.stock import stock_network
from alexnet_mp.crossing import to_towers
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.mesh import open_mesh
from alexnet_mp.model import TowerModel
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import Network
from alexnet_mp.placement import Launch, choose_placement
from alexnet_mp.presets import preset_path
from alexnet_mp.strict import from_mapping
from alexnet_mp.training.loop import LossOnEveryTower
from alexnet_mp.training.optimiser import make_optimiser
from alexnet_mp.training.recipe import Recipe


@dataclass(frozen=True)
class Trainee:
    """What one process of a contender trains.

    `losses(images, labels, step)` takes the global batch on the CPU, [N, channels, H, W] and [N], and returns the
    losses to run backward from. `bytes_sent()` counts since the start what one tower sent; `wait_for_all()` returns
    when every process of the contender has called it.
    """

    losses: Callable[[Tensor, Tensor, int], list[Tensor]]
    optimiser: torch.optim.Optimizer
    devices: list[torch.device]
    parameters: int
    bytes_sent: Callable[[], int]
    table_crossing_bytes: int
    wait_for_all: Callable[[], object]


@dataclass(frozen=True)
class Contender:
    """`check` runs before the contender's processes start, `build` in each of them.

    `check(network, device, processes)` raises ConfigurationError where this machine or network does not allow it.
    """

    meaning: str
    processes: Callable[[Network], int]
    check: Callable[[Network, str, int], object]
    build: Callable[[Task], AbstractContextManager[Trainee]]


def paper_recipe(batch_size: int) -> Recipe:
    """The preset `paper` for another batch; speed does not depend on its numbers."""
    preset = from_mapping(Recipe, OmegaConf.to_container(OmegaConf.load(preset_path("recipe", "paper"))), "recipe")
    return replace(preset, batch_size=batch_size)


@contextmanager
def _split(task: Task) -> Iterator[Trainee]:
    """This library's towers, placed by how many processes and devices there are; stepped as in training."""
    keep_large_blocks()
    placement = choose_placement("auto", task.device, task.network.towers, Launch.from_environment())
    with open_mesh(placement, task.deadline_seconds) as mesh:
        link = mesh.link()
        assert link is not None
        model = TowerModel(task.network, placement, link, task.seed)
        losses, devices = LossOnEveryTower(model), list(placement.devices.values())
        yield Trainee(
            losses=lambda images, labels, step: losses(to_towers(images, devices), to_towers(labels, devices), step),
            optimiser=make_optimiser(dict(model.towers.items()), paper_recipe(task.batch_size)),
            devices=devices,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            bytes_sent=lambda: link.traffic.sent_by(placement.first_tower),
            table_crossing_bytes=network_cost(task.network).crossing_bytes_per_step(task.batch_size),
            wait_for_all=lambda: mesh.gather([0.0]),
        )


@contextmanager
def _single_stock(task: Task) -> Iterator[Trainee]:
    torch.manual_seed(task.seed)
    device = choose_placement("simulated", task.device, 1, Launch()).devices[0]
    model = stock_network(task.network).to(device)
    recipe = paper_recipe(task.batch_size)
    learning_rate, weight_decay = recipe.weights.learning_rate, recipe.weights.weight_decay
    yield Trainee(
        losses=lambda images, labels, step: [F.cross_entropy(model(images.to(device)), labels.to(device))],
        optimiser=torch.optim.SGD(model.parameters(), learning_rate, recipe.momentum, weight_decay=weight_decay),
        devices=[device],
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        bytes_sent=lambda: 0,
        table_crossing_bytes=0,
        wait_for_all=lambda: None,
    )


def _check_split(network: Network, device: str, processes: int) -> None:
    if network.towers == 1:
        raise ConfigurationError(f"network {network.name} has one tower; there is nothing to split")
    choose_placement("auto", device, network.towers, Launch(0, processes, 0, processes))


def _check_single(network: Network, device: str, processes: int) -> None:
    choose_placement("simulated", device, 1, Launch())


def _one(network: Network) -> int:
    return 1


def _one_per_tower(network: Network) -> int:
    return network.towers


BASELINE = "single_stock"

CONTENDERS = {
    "split_two_processes": Contender("one process for each tower", _one_per_tower, _check_split, _split),
    "split_one_process": Contender("all towers in one process", _one, _check_split, _split),
    BASELINE: Contender("the same network in stock PyTorch, on one device", _one, _check_single, _single_stock),
}
