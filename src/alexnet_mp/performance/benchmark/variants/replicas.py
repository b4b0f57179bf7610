"""A whole network in every process, alone or sharing the batch under DDP; and stock PyTorch's, the baseline."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import convert_conv2d_weight_memory_format

from alexnet_mp.common.host import keep_large_blocks
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.single_device import STOCK_PARTS, single_network
from alexnet_mp.network.table import Network
from alexnet_mp.parallel.mesh import Mesh, open_mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.performance.benchmark.measurement import Sent, Task
from alexnet_mp.performance.benchmark.paper_recipe import paper_recipe
from alexnet_mp.performance.benchmark.variants.train_step import TrainStep

Build = Callable[[Task], nn.Module]
MakeOptimizer = Callable[[nn.Module, Task], torch.optim.Optimizer]


def replicated(
    build: Build, make_optimizer: MakeOptimizer, memory_format: torch.memory_format = torch.contiguous_format
) -> Callable[[Task], AbstractContextManager[TrainStep]]:
    """What trains `build`'s network in as many replicas as there are processes, each on its share of the batch."""

    @contextmanager
    def train_step(task: Task) -> Iterator[TrainStep]:
        placement = choose_placement("simulated", task.device, 1)
        torch.manual_seed(task.seed)
        with open_mesh(placement, task.deadline_seconds) as mesh:
            device = placement.devices[0]
            model = convert_conv2d_weight_memory_format(build(task).to(device), memory_format)
            yield replica_train_step(model, make_optimizer(model, task), mesh, memory_format)

    return train_step


def replica_train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    mesh: Mesh,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> TrainStep:
    """One replica of `model`; its loss is the mean over its share of the batch.

    DDP averages gradients over the replicas, so that they are those of the mean over the whole batch.
    """
    group, counter = mesh.replica_group(), GradientBytes(model)
    network = (
        model if group is None else DistributedDataParallel(model, process_group=group, gradient_as_bucket_view=True)
    )

    def forward(images: list[Tensor], labels: list[Tensor], step: int) -> list[Tensor]:
        return [F.cross_entropy(network(images[0]), labels[0])]

    def sent() -> Sent:
        return Sent(all_reduced=counter.total if group is not None else 0)

    return TrainStep(forward, optimizer, mesh, sent, memory_format=memory_format)


class GradientBytes:
    """Counts the bytes of the gradients that backward passes leave in a module's parameters."""

    def __init__(self, module: nn.Module) -> None:
        self.total = 0
        for parameter in module.parameters():
            parameter.register_post_accumulate_grad_hook(self._count)

    def _count(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self.total += parameter.grad.numel() * parameter.grad.element_size()


def check_replicas(network: Network, processes: int, batch_size: int) -> None:
    """Raise ConfigurationError if the batch cannot be shared by so many processes."""
    check_several(network, processes)
    if batch_size % processes:
        raise ConfigurationError(
            f"batch_size={batch_size} cannot be shared equally by {processes} data-parallel processes; use a multiple"
        )


def check_several(network: Network, processes: int) -> None:
    """Raise ConfigurationError if there would be one process only."""
    if processes == 1:
        raise ConfigurationError(f"network {network.name} has one tower, so there is one process; nothing to share")


def stock_sgd(model: nn.Module, task: Task, fused: bool | None = None) -> torch.optim.Optimizer:
    """PyTorch's SGD with the numbers of the paper."""
    recipe = paper_recipe(task.batch_size)
    rates, decay = recipe.weights, recipe.weights.weight_decay
    return torch.optim.SGD(model.parameters(), rates.learning_rate, recipe.momentum, weight_decay=decay, fused=fused)


# As a PyTorch user would have it: ReLUs work in place and dropout is inverted, as torchvision has them. The LRN stays
# within each tower at no cost: one chunk a tower would copy every map, and hold the baseline back.
stock_network_whole = replicated(lambda task: single_network(task.network, STOCK_PARTS), stock_sgd)


def _tuned(task: Task) -> nn.Module:
    keep_large_blocks()
    model = single_network(task.network, STOCK_PARTS)
    model.compile()
    return model


# As a good engineer would set the same network up: with the allocator's settings that we use, in channels_last, with a
# fused update, and the whole model by torch.compile.
tuned_stock_network_whole = replicated(_tuned, partial(stock_sgd, fused=True), torch.channels_last)
