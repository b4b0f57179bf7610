"""What trains a variant: its number of processes, whether it can run here, and the step of each process."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from alexnet_mp.network.table import Network
from alexnet_mp.performance.benchmark.measurement import Task
from alexnet_mp.performance.benchmark.timed_link import TimedLink


@dataclass(frozen=True)
class Sent:
    """Bytes since the start: of one tower over the crossings, of gradients that were all-reduced, to other stages."""

    crossing: int = 0
    all_reduced: int = 0
    pipeline: int = 0


@dataclass(frozen=True)
class TrainStep:
    """What one process of a variant trains.

    `forward(images, labels, step)` takes the global batch on the CPU, [N, channels, H, W] and [N], and returns the
    losses that this process has, for `backward`. `wait_for_all()` returns when every process of the variant has
    called it. With `together`, as in a pipeline, `forward` does the work of both.
    """

    forward: Callable[[Tensor, Tensor, int], list[Tensor]]
    backward: Callable[[list[Tensor]], object]
    optimizer: torch.optim.Optimizer
    devices: list[torch.device]
    parameters: int
    wait_for_all: Callable[[], object]
    sent: Callable[[], Sent] = Sent
    table_crossing_bytes: int = 0
    link: TimedLink | None = None
    together: bool = False


@dataclass(frozen=True)
class TrainingVariant:
    """`check` runs before the variant's processes start, `build` in each of them.

    `check(network, device, processes, batch_size)` raises ConfigurationError if this machine, network or batch does
    not allow it. `ours` says whose code it is, for the chart.
    """

    meaning: str
    processes: Callable[[Network], int]
    check: Callable[[Network, str, int, int], object]
    build: Callable[[Task], AbstractContextManager[TrainStep]]
    ours: bool = True


def one(network: Network) -> int:
    """One process, whatever the network."""
    return 1


def one_per_tower(network: Network) -> int:
    """As many processes as towers."""
    return network.towers


def parameter_count(module: torch.nn.Module) -> int:
    """How many parameters a module holds."""
    return sum(parameter.numel() for parameter in module.parameters())
