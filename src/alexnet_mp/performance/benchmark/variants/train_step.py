"""A variant: its number of processes, whether it can run here, and the training step of each process."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from alexnet_mp.network.table import Network
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.performance.benchmark.measurement import Sent, Task
from alexnet_mp.performance.benchmark.timed_link import TimedLink


@dataclass(frozen=True)
class TrainStep:
    """What one process of a variant trains.

    `forward(images, labels, step)` takes the global batch on the CPU, [N, channels, H, W] and [N], and returns the
    losses that this process has, for the backward pass. With `together`, as in a pipeline, `forward` does the work of
    both. `sent()` counts from the start.
    """

    forward: Callable[[Tensor, Tensor, int], list[Tensor]]
    optimizer: torch.optim.Optimizer
    mesh: Mesh
    sent: Callable[[], Sent] = Sent
    table_crossing_bytes: int = 0
    link: TimedLink | None = None
    together: bool = False

    @property
    def devices(self) -> list[torch.device]:
        return list(self.mesh.placement.devices.values())

    @property
    def parameters(self) -> int:
        """How many this process trains."""
        return sum(weight.numel() for group in self.optimizer.param_groups for weight in group["params"])


@dataclass(frozen=True)
class TrainingVariant:
    """A way of training; `build` runs in each of its processes, one or `one_per_tower`.

    `check_task(network, processes, batch_size)` raises ConfigurationError if network or batch do not allow it. `ours`
    says whose code it is, for the chart.
    """

    meaning: str
    build: Callable[[Task], AbstractContextManager[TrainStep]]
    check_task: Callable[[Network, int, int], object] = lambda *_: None
    one_per_tower: bool = False
    ours: bool = True

    def processes(self, network: Network) -> int:
        """How many processes train `network`."""
        return network.towers if self.one_per_tower else 1

    def check(self, network: Network, device: str, batch_size: int) -> None:
        """Raise ConfigurationError if this machine, network or batch does not allow it; before processes start."""
        processes = self.processes(network)
        choose_placement("simulated", device, 1, Launch(0, processes, 0, processes))  # has it the devices?
        self.check_task(network, processes, batch_size)
