"""Placement: which towers this process holds, where, as which replica; decided before anything communicates."""

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch

from alexnet_mp.common.schema import choice
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.parallel.launch import Launch

PlacementKind = Literal["simulated", "two_devices", "distributed"]


@dataclass(frozen=True)
class Placement:
    """Where the towers of a replica live, seen from one process.

    `devices` maps each local tower to its device, in tower order; `replica` of `replicas` is the share of the global
    batch that this process works on.
    """

    kind: PlacementKind
    towers: int
    devices: dict[int, torch.device]
    replica: int = 0
    replicas: int = 1
    launch: Launch = field(default_factory=Launch)

    @property
    def first_tower(self) -> int:
        return next(iter(self.devices))

    @property
    def replica_devices(self) -> dict[int, torch.device]:
        """The device of every tower of this process's replica, those of its other processes included."""
        own = self.devices[self.first_tower]
        if self.kind != "distributed" or own.index is None:
            return {tower: self.devices.get(tower, own) for tower in range(self.towers)}
        # A replica is never split over two nodes, and its processes' local ranks, so their devices, follow each other.
        return {tower: torch.device(own.type, own.index - self.first_tower + tower) for tower in range(self.towers)}

    @property
    def on_gpus(self) -> bool:
        """True if this process's towers are on GPUs; otherwise they are on a CPU."""
        return self.devices[self.first_tower].type == "cuda"

    @property
    def is_main(self) -> bool:
        """True in the one process that prints and writes."""
        return self.launch.rank == 0

    def in_words(self) -> str:
        where = ", ".join(f"tower {tower} on {device}" for tower, device in self.devices.items())
        replicas = f"{self.replicas} replica{'s' if self.replicas > 1 else ''}"
        meaning = {
            "simulated": "all towers on one device",
            "two_devices": "one process, one device for each tower",
            "distributed": "one process for each tower",
        }
        return f"{self.kind} ({meaning[self.kind]}), {replicas}; process {self.launch.rank}: {where}"


def choose_placement(
    requested: str, device: str, towers: int, launch: Launch, visible_gpus: int | None = None
) -> Placement:
    """Decide the placement of a network of `towers` towers, or say with the numbers why it cannot be.

    `requested` is auto, simulated, two_devices or distributed; `device` is auto, cpu or cuda. `auto` means distributed
    with more than one process, two_devices with a visible GPU for every tower, simulated otherwise. `visible_gpus` is
    asked of torch unless given.

    Raises ConfigurationError for a world size that towers do not divide, a replica split over two nodes, two_devices
    with fewer devices than towers, and more processes than GPUs.
    """
    choice(requested, ("auto", *get_args(PlacementKind)), "placement")
    choice(device, ("auto", "cpu", "cuda"), "device")
    gpus = torch.cuda.device_count() if visible_gpus is None else visible_gpus
    if device == "cuda" and gpus == 0:
        raise ConfigurationError("device=cuda, but torch sees no GPU here; use device=cpu, or a CUDA build of torch")
    if device == "cpu":
        gpus = 0
    if requested != "auto":
        kind = requested
    elif launch.world_size > 1:
        kind = "distributed"
    else:
        kind = "two_devices" if 1 < towers <= gpus else "simulated"
    if kind == "distributed":
        return _distributed(towers, launch, gpus)
    if kind == "two_devices":
        return _two_devices(towers, launch, gpus)
    _check_gpus_for_processes(launch, gpus)
    only = _device(launch.local_rank, gpus)
    return Placement(
        "simulated", towers, dict.fromkeys(range(towers), only), launch.rank, launch.world_size, launch=launch
    )


def _distributed(towers: int, launch: Launch, gpus: int) -> Placement:
    if launch.world_size % towers:
        raise ConfigurationError(
            f"{launch.world_size} process{'es' if launch.world_size > 1 else ''} cannot hold replicas of {towers} "
            f"towers, one each; start a multiple of {towers}, for example torchrun --nproc-per-node={towers}"
        )
    if launch.local_world_size % towers:
        raise ConfigurationError(
            f"--nproc-per-node={launch.local_world_size} would split a replica of {towers} towers over two nodes; "
            f"give it a multiple of {towers}"
        )
    _check_gpus_for_processes(launch, gpus)
    # Tower is the fastest axis, so that a replica's processes are neighbors on one node.
    replica, tower = divmod(launch.rank, towers)
    device = _device(launch.local_rank, gpus)
    return Placement("distributed", towers, {tower: device}, replica, launch.world_size // towers, launch=launch)


def _two_devices(towers: int, launch: Launch, gpus: int) -> Placement:
    needed = towers * launch.local_world_size
    if towers < 2:
        raise ConfigurationError("placement=two_devices with a network of one tower; use placement=simulated")
    if gpus < needed:
        raise ConfigurationError(
            f"placement=two_devices needs {needed} GPUs on this node (towers: {towers}, processes: "
            f"{launch.local_world_size}) and sees {gpus}; use placement=simulated, or on CPUs "
            f"torchrun --nproc-per-node={towers}"
        )
    first = launch.local_rank * towers
    devices = {tower: torch.device("cuda", first + tower) for tower in range(towers)}
    return Placement("two_devices", towers, devices, launch.rank, launch.world_size, launch=launch)


def _check_gpus_for_processes(launch: Launch, gpus: int) -> None:
    if 0 < gpus < launch.local_world_size:
        raise ConfigurationError(
            f"{launch.local_world_size} processes on this node for {gpus} GPU{'s' if gpus > 1 else ''}; "
            f"use --nproc-per-node={gpus} or less, or device=cpu"
        )


def _device(index: int, gpus: int) -> torch.device:
    return torch.device("cuda", index) if gpus else torch.device("cpu")
