"""Tests the link alone: whether patterns cross it unchanged, and how long each crossing takes."""

import math
from collections.abc import Sequence
from statistics import median
from typing import TypeVar

import torch

from alexnet_mp.common.host import now
from alexnet_mp.network.table import Network
from alexnet_mp.parallel.link_test import (
    Passage,
    differing_values,
    examined_link,
    in_words,
    passages,
    what_to_do,
)
from alexnet_mp.parallel.links import Direction, Link, Pending, Tensors
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.performance.machine_check.settings import Check, CheckResult, Speed

T = TypeVar("T")

_LATE = {"cuda": 4096, "cpu": 256}  # size of the matrices that a late tower multiplies first
WARMUP_EXCHANGES = 2  # exchanges that are not timed: NCCL connects at the first


def link_results(check: Check) -> list[CheckResult]:
    """The self-test in words; the link that it leaves, perhaps through host memory, is that of the later parts."""
    mesh, network, check.link = check.mesh, check.settings.network, None
    tested = examined_link(mesh, network, check.settings.batch_size)
    check.link = tested.link
    assert tested.corrupt is not None
    tried = len(passages(network, check.settings.batch_size))
    transfers = tried * network.towers * (network.towers - 1) * mesh.placement.replicas
    numbers = {"transfers": float(transfers), "corrupt_transfers": float(len(tested.corrupt))}
    if not tested.corrupt:
        return [CheckResult("link", "pass", f"{transfers} transfers of patterns, every bit as sent", numbers)]
    found, direct = in_words(tested.corrupt), mesh.link_choice != "host"
    if tested.corrupt_through_host is not None:
        direct = not tested.corrupt_through_host
        numbers["corrupt_transfers_through_host"] = float(len(tested.corrupt_through_host))
        host = "right, and what training falls back to" if direct else in_words(tested.corrupt_through_host)
        found = f"direct copies: {found}; through host memory: {host}"
    return [CheckResult("link", "fail", found, numbers, what_to_do(mesh.placement, direct))]


def why_nothing_is_carried(network: Network) -> str:
    """Why this launch has no link to check, and how to have one."""
    towers = network.towers
    if towers == 1:
        return f"network {network.name} has one tower, nothing crosses"
    return (
        f"all towers are on one device, nothing is carried; start with two GPUs or more, or as torchrun "
        f"--nproc-per-node={towers}"
    )


class LoadedLink:
    """A link under load: parcels are copies, of one tower in turn made late, whose memory is written over once free."""

    def __init__(self, link: Link, devices: Sequence[torch.device]) -> None:
        self.towers, self.local_towers, self.traffic = link.towers, link.local_towers, link.traffic
        self._link, self._posts = link, 0
        self._work = [torch.ones(_LATE[device.type], _LATE[device.type], device=device) for device in devices]

    def post(self, outgoing: Tensors, crossing: str, direction: Direction) -> Pending:
        self._posts += 1
        for tower, matrix in zip(self.local_towers, self._work, strict=True):
            if tower == self._posts % self.towers:
                matrix @ matrix
        pending = self._link.post([[each.clone() for each in parcels] for parcels in outgoing], crossing, direction)
        for parcel in (each for parcels in outgoing for each in parcels):
            torch.full_like(parcel, math.nan)
        return pending


def under_load(check: Check) -> list[CheckResult]:
    """Repeat the link's test under load; every process calls it, and gets the same."""
    assert check.link is not None
    link, repetitions, of = LoadedLink(check.link, check.devices), check.settings.repetitions, check.settings
    tests = (
        differing_values(link, check.devices, of.network, of.batch_size, attempt) for attempt in range(repetitions)
    )
    (total,) = check.mesh.sum_over_processes([sum(map(sum, tests))])
    found = f"{total:,.0f} values differ in {repetitions} repetitions, senders late and memory used again"
    advice = "trust no training on this link; link=host carries what crosses through host memory" if total else ""
    numbers = {"repetitions": float(repetitions), "differing_values": total}
    return [CheckResult("link under load", "fail" if total else "pass", found, numbers, advice)]


def crossing_results(check: Check) -> list[CheckResult]:
    """Time every passage of a step, and one float, the link's latency; every process calls it, and gets the same.

    What returns in a crossing's backward pass is as large, and is measured for itself.
    """
    assert check.link is not None
    network, images, peers = check.settings.network, check.settings.batch_size, check.link.towers - 1
    for p in [*passages(network, images, largest=None), Passage("one float", "forward", (1, 1))]:
        seconds = exchange_seconds(check.mesh, check.link, p, check.settings.rounds)
        check.speeds.append(Speed(p, 4 * peers * math.prod(p.shape), seconds))
    *crossings, single = check.speeds
    results = [
        CheckResult(
            f"{passage.crossing} {passage.direction}",
            "measured",
            f"{sent:,} bytes each way in {1e3 * seconds:.2f} ms: {sent / seconds / 1e9:.3g} GB/s",
            {"bytes": float(sent), "seconds": seconds, "bytes_per_second": sent / seconds},
        )
        for passage, sent, seconds in crossings
    ]
    latency = f"{1e6 * single.seconds:.0f} µs for one float each way"
    return [*results, CheckResult("latency", "measured", latency, {"seconds": single.seconds})]


def exchange_seconds(mesh: Mesh, link: Link, passage: Passage, rounds: int) -> float:
    """The median over the rounds, of the slowest replica.

    A process that is ready before its peers waits for them, so of a replica the shortest time counts: that of the
    process which came last.
    """
    devices = list(mesh.placement.devices.values())
    laid_out = torch.channels_last if len(passage.shape) == 4 else torch.contiguous_format
    outgoing = [
        [torch.ones(passage.shape, device=device).contiguous(memory_format=laid_out)] * (link.towers - 1)
        for device in devices
    ]
    seconds = []
    for _ in range(WARMUP_EXCHANGES + rounds):
        mesh.gather([0.0])
        start = now(devices)
        link.post(outgoing, passage.crossing, passage.direction)()
        seconds.append(now(devices) - start)
    replicas = by_replica(mesh, mesh.gather(seconds[WARMUP_EXCHANGES:]))
    shortest: list[list[float]] = [[min(times) for times in zip(*each, strict=True)] for each in replicas]
    return max(map(median, shortest))


def by_replica(mesh: Mesh, everyone: list[T]) -> list[list[T]]:
    """What `Mesh.gather` has of every process, in a list for each replica."""
    together = len(everyone) // mesh.placement.replicas
    return [everyone[first : first + together] for first in range(0, len(everyone), together)]
