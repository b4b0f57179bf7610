"""The (replica, tower) mesh: opens and closes the process groups, and asks what all processes must agree on."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from alexnet_mp.errors import NotSaved, Stopped, in_short
from alexnet_mp.parallel.host_link import HostLink
from alexnet_mp.parallel.links import Link, LocalLink, ProcessLink
from alexnet_mp.parallel.peer_errors import failing_as_peer_lost
from alexnet_mp.parallel.placement import LinkChoice, Placement
from alexnet_mp.parallel.rendezvous import link_over_gpus, rendezvous_store, silent_ranks

# What processes raise when they have agreed on it, with no exchange left open. A ConfigurationError is not among these:
# in an evaluation one process alone may have it, because only its images cannot be read.
_RAISED_IN_STEP = (Stopped, FloatingPointError, NotSaved)
# NCCL counts from when an exchange is queued, and then aborts the process: our time-out, which says who, comes first.
NCCL_WAITS_LONGER = 60  # seconds


@dataclass(frozen=True)
class Mesh:
    """The axes `replica` and `tower` of the processes of a run; None for a run of one process.

    Crossings have the tower axis to themselves, gradients the replica axis; everything else (agreements, metrics) goes
    over the world, on CPU tensors. `store` is where the processes have met. With the `link_choice` host nothing is
    copied from GPU to GPU, neither what crosses nor gradients; with auto, what crosses may be changed to that.
    """

    placement: Placement
    axes: DeviceMesh | None
    store: dist.Store | None = None  # type: ignore[name-defined]
    link_choice: LinkChoice = "auto"
    timeout_seconds: float = 600

    def link(self) -> Link | None:
        """What carries the crossings under this placement; None for a network of one tower."""
        if self.placement.towers == 1:
            return None
        if self.placement.kind != "distributed":
            link = LocalLink(list(self.placement.devices.values()))
            link.through_host = self.link_choice == "host"
            return link
        assert self.axes is not None
        between_processes = HostLink if self.link_choice == "host" else ProcessLink
        return between_processes(self.axes.get_group("tower"))

    def fallback(self, direct: Link) -> Link | None:
        """What carries the crossings through host memory in place of `direct`; every process of the run calls it.

        None if that is done already, or not allowed, or if replicas would go on to average gradients between GPUs,
        which nobody has tested.
        """
        if self.link_choice != "auto":
            return None
        if isinstance(direct, LocalLink):
            direct.through_host = True
            return direct
        if self.axes is None or (self.placement.on_gpus and self.placement.replicas > 1):
            return None
        rows = [_new_group(row.tolist(), _HOST, self.timeout_seconds) for row in self.axes.mesh]
        return HostLink(rows[self.placement.replica])

    def replica_group(self) -> dist.ProcessGroup | None:
        """The processes that hold the same towers in different replicas; None if there is one replica."""
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
        """True if every process passed the same value (63 bits)."""
        if self.axes is None:
            return True
        message = torch.tensor([value, -value])
        with needing_all("an agreement of all processes"):
            dist.all_reduce(message, dist.ReduceOp.MAX)
        return int(message[0]) == value and int(message[1]) == -value

    def any(self, flag: bool) -> bool:
        """True in every process if one has passed True; every process calls it."""
        return any(value for (value,) in self.gather([float(flag)]))

    def from_replica_0(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite each process's tensors by those of the process that holds the same towers in replica 0."""
        group = self.replica_group()
        for tensor in tensors if group is not None else ():
            message = tensor.contiguous()  # whatever the memory formats in the two replicas are
            with needing_all("replica 0's tensors"):
                dist.broadcast(message, group=group, group_src=0)
            tensor.copy_(message)

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

    def silent_ranks(self, seconds: float) -> list[int]:
        """The ranks that do not answer within `seconds`, when an exchange has failed; every one that is left calls it.

        Empty if that cannot be told, because the process that they meet at is gone.
        """
        rank, world_size = self.placement.launch.rank, self.placement.launch.world_size
        if world_size == 2:
            return [1 - rank]
        return silent_ranks(self.store, rank, world_size, seconds) if self.store is not None else []


def needing_all(what: str) -> AbstractContextManager[None]:
    """Raise PeerLost if an exchange fails because another process hung or is gone.

    gloo raises a plain RuntimeError for both. A crossing names the peer; a collective cannot.
    """
    return failing_as_peer_lost(lambda error: f"{what}: another process hung or is gone ({in_short(error)})")


@contextmanager
def open_mesh(placement: Placement, timeout_seconds: float, link: LinkChoice = "auto") -> Iterator[Mesh]:
    """Join the processes of a run, each group with an explicit time-out, and leave them at the end.

    `link`: what crosses goes from GPU to GPU (`direct`), through host memory (`host`), or `auto`: directly, unless
    processes share a GPU or the link's self-test finds that copies are corrupt. Raises ConfigurationError in every
    process if two of them have the same GPU and the link is `direct`.
    """
    if placement.launch.world_size == 1:
        yield make_mesh(placement, timeout_seconds, link)
        return
    device = next(iter(placement.devices.values()))
    launch, timeout = placement.launch, timedelta(seconds=timeout_seconds)
    with needing_all("joining the processes of the run"):
        store = rendezvous_store(launch, timeout)
        dist.init_process_group("gloo", store=store, rank=launch.rank, world_size=launch.world_size, timeout=timeout)
    try:
        if device.type == "cuda":
            with needing_all("comparing the GPUs of the run"):
                link = link_over_gpus(link, store, launch, str(torch.cuda.get_device_properties(device).uuid))
        with needing_all("making the groups of the run"):
            mesh = make_mesh(placement, timeout_seconds, link)
        yield replace(mesh, store=store)
    except BaseException as error:
        # NCCL's end would wait, unheard, for exchanges that the peer never joins.
        if device.type == "cpu" or isinstance(error, _RAISED_IN_STEP):
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def make_mesh(placement: Placement, timeout_seconds: float, link: LinkChoice = "auto") -> Mesh:
    """The mesh of processes that have joined already; every process of the world calls it. `link`: see `open_mesh`.

    The world is split into rows (the towers of one replica) and columns (one tower's replicas).
    """
    launch, mesh = placement.launch, Mesh(placement, None, None, link, timeout_seconds)
    if launch.world_size == 1:
        return mesh
    device = next(iter(placement.devices.values()))
    if device.type == "cuda":
        torch.cuda.set_device(device)  # what NCCL takes for this process's GPU
    ranks = torch.arange(launch.world_size).view(placement.replicas, -1)  # [replicas, processes a replica]
    replica, position = divmod(launch.rank, ranks.shape[1])
    memory = _HOST if link == "host" else device
    rows = [_new_group(row.tolist(), memory, timeout_seconds, urgent=True) for row in ranks]
    columns = [_new_group(column.tolist(), memory, timeout_seconds) for column in ranks.T]
    groups, names = [columns[position], rows[replica]], ("replica", "tower")
    return replace(mesh, axes=DeviceMesh.from_group(groups, device.type, mesh=ranks, mesh_dim_names=names))


_HOST = torch.device("cpu")  # for gloo, which carries what is in a GPU's memory through the host's


def _new_group(ranks: list[int], device: torch.device, seconds: float, urgent: bool = False) -> dist.ProcessGroup:
    """Processes that exchange what is in a device's memory; `urgent`: on a GPU, before kernels that wait as well."""
    backend, options = "gloo", None
    if device.type == "cuda":
        backend, seconds = "nccl", seconds + NCCL_WAITS_LONGER
        options = dist.ProcessGroupNCCL.Options(is_high_priority_stream=urgent)
        options._timeout = timedelta(seconds=seconds)  # new_group sets it too, and warns if it has been another
    return cast(dist.ProcessGroup, dist.new_group(ranks, timedelta(seconds=seconds), backend, options))
