"""A variant: its number of processes, whether it can run here, and the training step of each process."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from alexnet_mp.common.rng import keyed_generator
from alexnet_mp.network.table import Network
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.performance.benchmark.measurement import Sent, Task
from alexnet_mp.performance.benchmark.phase_clock import PhaseClock
from alexnet_mp.performance.benchmark.timed_link import TimedLink


@dataclass(frozen=True)
class TrainStep:
    """What one process of a variant trains.

    `forward(images, labels, step)` takes what `on_devices` gives and returns the losses that this process has, for the
    backward pass. With `together`, as in a pipeline, `forward` does the work of both and every process gets the whole
    batch; else each gets a replica's share. `sent()` counts from the start.
    """

    forward: Callable[[list[Tensor], list[Tensor], int], list[Tensor]]
    optimizer: torch.optim.Optimizer
    mesh: Mesh
    sent: Callable[[], Sent] = Sent
    table_crossing_bytes: int = 0
    link: TimedLink | None = None
    together: bool = False
    memory_format: torch.memory_format = torch.contiguous_format

    @property
    def devices(self) -> list[torch.device]:
        return list(self.mesh.placement.devices.values())

    @property
    def parameters(self) -> int:
        """How many this process trains."""
        return sum(weight.numel() for group in self.optimizer.param_groups for weight in group["params"])

    def on_devices(self, images: Tensor, labels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """This process's part of the global batch, [n, channels, H, W] and [n], once for each of `devices`.

        Towers that share a device share the tensor.
        """
        placement = self.mesh.placement
        if not self.together:
            images, labels = (each.chunk(placement.replicas)[placement.replica] for each in (images, labels))
        distinct = set(self.devices)
        of_images = {device: images.to(device, memory_format=self.memory_format) for device in distinct}
        of_labels = {device: labels.to(device) for device in distinct}
        return [of_images[device] for device in self.devices], [of_labels[device] for device in self.devices]

    def random_batch(self, network: Network, batch_size: int, seed: int) -> tuple[list[Tensor], list[Tensor]]:
        """`on_devices` of random images and labels.

        Of unit variance, so that no preset's initial weights make the loss overflow; speed does not depend on values.
        """
        generator = keyed_generator(seed, "benchmark images")
        images = torch.randn(batch_size, *network.image, generator=generator)
        return self.on_devices(images, torch.randint(network.classes, (batch_size,), generator=generator))


def train_steps(
    train_step: TrainStep, images: list[Tensor], labels: list[Tensor], steps: range
) -> tuple[list[float], list[Tensor]]:
    """Train for `steps`; return the seconds of all forward passes, backward passes and updates, and the last losses."""
    losses: list[Tensor] = []
    clock = PhaseClock(train_step.devices)
    for step in steps:
        losses = train_step.forward(images, labels, step)
        clock.mark()
        if not train_step.together:
            torch.autograd.backward(losses)
        clock.mark()
        train_step.optimizer.step()
        train_step.optimizer.zero_grad()
        clock.mark()
    return clock.seconds(phases=3), losses


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

    def check_devices(self, network: Network, device: str) -> None:
        """Raise ConfigurationError if this machine has too few devices for its processes."""
        processes = self.processes(network)
        choose_placement("simulated", device, 1, Launch(0, processes, 0, processes))
