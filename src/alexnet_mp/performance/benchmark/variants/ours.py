"""Our variants: the towers, networks of one tower trained by the same code, and the network whole, of our layers."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import torch
from torch import nn

from alexnet_mp.common.host import keep_large_blocks
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.layers.norm import LocalResponseNorm
from alexnet_mp.model.single_device import OUR_PARTS, single_network
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import Network
from alexnet_mp.parallel.mesh import Mesh, open_mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.performance.benchmark.measurement import Sent, Task
from alexnet_mp.performance.benchmark.paper_recipe import paper_recipe
from alexnet_mp.performance.benchmark.timed_link import TimedLink
from alexnet_mp.performance.benchmark.variants.replicas import GradientBytes, replicated
from alexnet_mp.performance.benchmark.variants.train_step import TrainStep
from alexnet_mp.training.loss import LossOnEveryTower, data_parallel
from alexnet_mp.training.optimizer import make_optimizer

# The layout of the whole network of ours: that in which a tower has its maps.
MEMORY_FORMAT = torch.channels_last


def compile_lrn(model: nn.Module, compiled: bool) -> None:
    """Have the LRN of a model compiled, at its first use, or not."""
    for layer in model.modules():
        if isinstance(layer, LocalResponseNorm):
            layer.compiled = compiled


@contextmanager
def towers(task: Task) -> Iterator[TrainStep]:
    """The table's towers, placed by how many processes and devices there are; stepped as in training.

    With more processes than towers there are several replicas, each on its share of the batch.
    """
    keep_large_blocks()  # before anything is allocated, as the training command does
    network = task.network
    kind = "auto" if network.towers > 1 else "simulated"
    placement = choose_placement(kind, task.device, network.towers)
    with open_mesh(placement, task.deadline_seconds) as mesh:
        link = mesh.link()
        timed = TimedLink(link) if link is not None else None
        model = TowerModel(network, placement, timed, task.seed)
        compile_lrn(model, task.compile)
        yield towers_train_step(model, mesh, timed, task.batch_size)


def towers_train_step(
    model: TowerModel, mesh: Mesh, link: TimedLink | None, batch_size: int, autocast: torch.dtype | None = None
) -> TrainStep:
    """The step of a process that holds towers of `model`, which cross over `link`; `batch_size` is global."""
    placement, costs = mesh.placement, network_cost(model.network)
    counter = GradientBytes(model) if placement.replicas > 1 else None

    def sent() -> Sent:
        crossed = link.traffic.sent_by(placement.first_tower) if link else 0
        return Sent(crossing=crossed, all_reduced=counter.total if counter else 0)

    return TrainStep(
        forward=data_parallel(LossOnEveryTower(model, autocast), mesh),
        optimizer=make_optimizer(dict(model.towers.items()), paper_recipe(batch_size)),
        mesh=mesh,
        sent=sent,
        table_crossing_bytes=costs.crossing_bytes_per_step(batch_size // placement.replicas),
        link=link,
    )


def one_tower(derive: Callable[[Network], Network]) -> Callable[[Task], AbstractContextManager[TrainStep]]:
    """What trains, by the code of the towers, the network of one tower that `derive` makes of the table."""
    return lambda task: towers(replace(task, network=derive(task.network)))


def _whole(task: Task) -> nn.Module:
    keep_large_blocks()  # before anything is allocated, as the training command does
    model = single_network(task.network, OUR_PARTS)
    compile_lrn(model, task.compile)
    return model


def paper_sgd(model: nn.Module, task: Task) -> torch.optim.Optimizer:
    return make_optimizer({"0": model}, paper_recipe(task.batch_size))


whole_network = replicated(_whole, paper_sgd, MEMORY_FORMAT)


def check_split(network: Network, processes: int, batch_size: int) -> None:
    """Raise ConfigurationError if there are no towers to place."""
    if network.towers == 1:
        raise ConfigurationError(f"network {network.name} has one tower; there is nothing to split")
