"""Placement: which towers this process holds, where, as which replica; decided before anything communicates."""

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch

from alexnet_mp.common.schema import choice
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.parallel.launch import Launch

PlacementKind = Literal["simulated", "two_devices", "distributed"]
LinkChoice = Literal["auto", "direct", "host"]  # see `open_mesh`


@dataclass(frozen=True)
class Placement:
    """Where the towers of a replica live, seen from one process.

    `devices` maps each local tower to its device, in tower order; `replica` of `replicas` is the share of the global
    batch that this process works on. `sees_own_gpu_alone`: the GPUs of other processes are hidden from this one, or
    shared among them.
    """

    kind: PlacementKind
    towers: int
    devices: dict[int, torch.device]
    replica: int = 0
    replicas: int = 1
    launch: Launch = field(default_factory=Launch)
    sees_own_gpu_alone: bool = False

    @property
    def first_tower(self) -> int:
        return next(iter(self.devices))

    @property
    def replica_devices(self) -> dict[int, torch.device]:
        """The device of every tower of this process's replica, also of its other processes' if it sees them."""
        own = self.devices[self.first_tower]
        if self.sees_own_gpu_alone:
            return dict(self.devices)
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
    requested: str,
    device: str,
    towers: int,
    launch: Launch | None = None,
    visible_gpus: int | None = None,
    link: LinkChoice = "direct",
) -> Placement:
    """Decide the placement of a network of `towers` towers, or say with the numbers why it cannot be.

    `requested` is auto, simulated, two_devices or distributed; `device` is auto, cpu or cuda. `auto` means distributed
    with more than one process, two_devices with a visible GPU for every tower, simulated otherwise. `launch` is what
    torchrun says of this process, and `visible_gpus` is asked of torch, unless given. One of several processes that
    sees one GPU takes it, because Slurm and torchrun's --virtual-local-rank show each process its own;
    `link_over_gpus` finds those that have the same. If the `link` need not be direct, more processes than GPUs take
    them in turn.

    Raises ConfigurationError for a world size that towers do not divide, a replica split over two nodes, two_devices
    with fewer devices than towers or in several processes, and more processes than GPUs with a direct link.
    """
    choice(requested, ("auto", *get_args(PlacementKind)), "placement")
    choice(device, ("auto", "cpu", "cuda"), "device")
    launch = launch or Launch.from_environment()
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
        return _distributed(towers, launch, gpus, link)
    if kind == "two_devices":
        return _two_devices(towers, launch, gpus)
    device_of_all, alone = _device(launch, gpus, link)
    devices = dict.fromkeys(range(towers), device_of_all)
    return Placement("simulated", towers, devices, launch.rank, launch.world_size, launch, alone)


def _distributed(towers: int, launch: Launch, gpus: int, link: LinkChoice) -> Placement:
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
    # Tower is the fastest axis, so that a replica's processes are neighbors on one node.
    replica, tower = divmod(launch.rank, towers)
    device, alone = _device(launch, gpus, link)
    return Placement("distributed", towers, {tower: device}, replica, launch.world_size // towers, launch, alone)


def _two_devices(towers: int, launch: Launch, gpus: int) -> Placement:
    if towers < 2:
        raise ConfigurationError("placement=two_devices with a network of one tower; use placement=simulated")
    if launch.world_size > 1:
        raise ConfigurationError(
            f"placement=two_devices is for one process, and these are {launch.world_size}: gradients of a network on "
            "several devices of one process have never been averaged over replicas; use placement=distributed, one "
            "process for each tower"
        )
    if gpus < towers:
        raise ConfigurationError(
            f"placement=two_devices needs {towers} GPUs, one for each tower, and sees {gpus}; use placement=simulated, "
            f"or on CPUs torchrun --nproc-per-node={towers}"
        )
    devices = {tower: torch.device("cuda", tower) for tower in range(towers)}
    return Placement("two_devices", towers, devices, launch=launch)


def _device(launch: Launch, gpus: int, link: LinkChoice) -> tuple[torch.device, bool]:
    """The device of a process, and whether it says nothing of the other processes' devices."""
    if not gpus:
        return torch.device("cpu"), False
    if gpus == 1 and not launch.planned:
        return torch.device("cuda", 0), launch.world_size > 1
    if gpus < launch.local_world_size and link == "direct":
        raise ConfigurationError(
            f"{launch.local_world_size} processes on this node for {gpus} GPU{'s' if gpus > 1 else ''}; "
            f"use --nproc-per-node={gpus} or less, or device=cpu; training and evaluation share them with link=host"
        )
    if gpus < launch.local_world_size:
        return torch.device("cuda", launch.local_rank % gpus), True
    return torch.device("cuda", launch.local_rank), False
