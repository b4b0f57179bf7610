"""The (replica, tower) mesh: the process groups of a placement, opened and closed in one place."""

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from alexnet_mp.crossing import Link, LocalLink, ProcessLink
from alexnet_mp.errors import ConfigurationError, PeerLost, first_line
from alexnet_mp.placement import Launch, Placement


@dataclass(frozen=True)
class Mesh:
    """The axes `replica` and `tower` of the processes of a run; None for a run of one process.

    Crossings have the tower axis to themselves, gradients the replica axis; everything else (agreements, metrics) goes
    over the world, on CPU tensors.
    """

    placement: Placement
    axes: DeviceMesh | None

    def link(self) -> Link | None:
        """What carries the crossings under this placement; None for a network of one tower."""
        if self.placement.towers == 1:
            return None
        if self.placement.kind != "distributed":
            return LocalLink(list(self.placement.devices.values()))
        assert self.axes is not None
        return ProcessLink(self.axes.get_group("tower"))

    def replica_group(self) -> dist.ProcessGroup | None:
        """The processes that hold the same towers in different replicas; None where there is one replica."""
        return self.axes.get_group("replica") if self.axes is not None and self.placement.replicas > 1 else None

    def from_main(self, value: int) -> int:
        """The main process's value, in every process."""
        if self.axes is None:
            return value
        message = torch.tensor([value])
        with needing_all("an agreement of all processes"):
            dist.broadcast(message, src=0)
        return int(message.item())

    def text_from_main(self, text: str) -> str:
        """The main process's text, in every process."""
        if self.axes is None:
            return text
        encoded = list(text.encode("utf-8", "surrogateescape")) if self.placement.is_main else []
        message = torch.empty(self.from_main(len(encoded)), dtype=torch.uint8)
        if self.placement.is_main:
            message.copy_(torch.tensor(encoded, dtype=torch.uint8))
        with needing_all("an agreement of all processes"):
            dist.broadcast(message, src=0)
        return bytes(message.tolist()).decode("utf-8", "surrogateescape")

    def all_equal(self, value: int) -> bool:
        """True where every process passed the same value (63 bits)."""
        if self.axes is None:
            return True
        message = torch.tensor([value, -value])
        with needing_all("an agreement of all processes"):
            dist.all_reduce(message, dist.ReduceOp.MAX)
        return int(message[0]) == value and int(message[1]) == -value

    def from_replica_0(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite each process's tensors by those of the process that holds the same towers in replica 0."""
        group = self.replica_group()
        for tensor in tensors if group is not None else ():
            with needing_all("replica 0's tensors"):
                dist.broadcast(tensor, group=group, group_src=0)

    def gather(self, values: list[float]) -> list[list[float]]:
        """Every process's values, in order of rank; all pass equally many."""
        if self.axes is None:
            return [values]
        mine = torch.tensor(values, dtype=torch.float64)
        everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        with needing_all("an agreement of all processes"):
            dist.all_gather(everyone, mine)
        return [each.tolist() for each in everyone]

    def sum_over_replicas(self, counts: Tensor) -> Tensor:
        """The sum of `counts` over the replicas, each counted once whatever the number of its processes."""
        if self.axes is None:
            return counts
        share = counts.clone() if self.placement.first_tower == 0 else torch.zeros_like(counts)
        with needing_all("a sum over the replicas"):
            dist.all_reduce(share)
        return share

    def sum_over_processes(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all processes, in every process."""
        if self.axes is None:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        with needing_all("the agreement at the end of a step"):
            dist.all_reduce(total)
        return total.tolist()


@contextmanager
def needing_all(what: str) -> Iterator[None]:
    """Raise PeerLost where an exchange fails because another process hung or is gone.

    gloo raises a plain RuntimeError for both. A crossing names the peer; a collective cannot.
    """
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(f"{what}: another process hung or is gone ({first_line(error)})") from error


@contextmanager
def open_mesh(placement: Placement, timeout_seconds: float) -> Iterator[Mesh]:
    """Join the processes of a run, each group with an explicit time-out, and leave them at the end."""
    if placement.launch.world_size == 1:
        yield Mesh(placement, None)
        return
    device = next(iter(placement.devices.values()))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    launch, timeout = placement.launch, timedelta(seconds=timeout_seconds)
    with needing_all("joining the processes of the run"):
        store = _store(launch, timeout)
        dist.init_process_group(backend, store=store, rank=launch.rank, world_size=launch.world_size, timeout=timeout)
    try:
        with needing_all("making the groups of the run"):
            mesh = make_mesh(placement, timeout_seconds)
        yield mesh
    except BaseException:
        if device.type == "cpu":  # NCCL's end would wait, unheard, for exchanges that the peer never joins
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def _store(launch: Launch, timeout: timedelta) -> dist.Store:  # type: ignore[name-defined]
    """Where the processes of a run find each other: at MASTER_ADDR and MASTER_PORT, as torchrun sets them.

    torchrun keeps its store while it starts processes again, and with it the addresses of those that have ended, to
    which the new ones would try to connect (github.com/pytorch/pytorch/issues/167288). So each start has its own names.
    TORCHELASTIC_RESTART_COUNT is none: a torchrun that starts its processes again because another one does, which is
    what happens on every node but that of the fault, does not count it.
    """
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT", "")
    if not host or not port.isdecimal():
        raise ConfigurationError(
            f"{launch.world_size} processes, and MASTER_ADDR and MASTER_PORT do not say where they meet; start them "
            "with torchrun"
        )
    is_host = launch.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = dist.TCPStore(  # type: ignore[attr-defined]
        host, int(port), is_master=is_host, timeout=timeout, wait_for_workers=False
    )
    return dist.PrefixStore(name_of_start(store, launch.rank, launch.world_size, timeout), store)  # type: ignore[attr-defined]


def name_of_start(store: dist.Store, rank: int, world_size: int, timeout: timedelta) -> str:  # type: ignore[name-defined]
    """A name that the processes that are started together have in common, and no earlier ones.

    Rank 0 makes it up, the others answer to it, and it is good once rank 0 has published their answers: a process that
    does not find its own there has read a name of before. Raises RuntimeError where some do not come.
    """
    mine, deadline = uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()
    if rank == 0:
        store.set("start", mine)
        missing = set(range(1, world_size))
        while missing := {other for other in missing if not store.check([f"{mine} {other}"])}:
            _wait_until(deadline, f"for {len(missing)} of {world_size} processes, rank {min(missing)} among them")
        store.set(f"{mine} answers", " ".join(store.get(f"{mine} {other}").decode() for other in range(1, world_size)))
        return mine
    while True:
        start = store.get("start").decode() if store.check(["start"]) else ""
        if start:
            store.set(f"{start} {rank}", mine)
            if store.check([f"{start} answers"]) and mine in store.get(f"{start} answers").decode().split():
                return start
        _wait_until(deadline, "for rank 0")


def _wait_until(deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise RuntimeError(f"waited {what}")
    time.sleep(0.01)


def make_mesh(placement: Placement, timeout_seconds: float) -> Mesh:
    """The mesh of processes that have joined already; every process of the world calls it.

    The world is split into rows (the towers of one replica) and columns (one tower's replicas).
    """
    launch = placement.launch
    if launch.world_size == 1:
        return Mesh(placement, None)
    device = next(iter(placement.devices.values()))
    if device.type == "cuda":
        torch.cuda.set_device(device)  # what NCCL takes for this process's GPU
    timeout = timedelta(seconds=timeout_seconds)
    ranks = torch.arange(launch.world_size).view(placement.replicas, -1)  # [replicas, processes a replica]
    replica, position = divmod(launch.rank, ranks.shape[1])
    rows = [dist.new_group(row.tolist(), timeout=timeout) for row in ranks]
    columns = [dist.new_group(column.tolist(), timeout=timeout) for column in ranks.T]
    groups = [columns[position], rows[replica]]
    return Mesh(placement, DeviceMesh.from_group(groups, device.type, mesh=ranks, mesh_dim_names=("replica", "tower")))
