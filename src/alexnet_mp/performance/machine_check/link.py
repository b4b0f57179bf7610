"""Tests the link alone: whether patterns cross it unchanged, and how long each crossing takes."""

import math
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import torch

from alexnet_mp.common.host import now
from alexnet_mp.network.table import Network
from alexnet_mp.parallel.link_test import LinkTest, Passage, in_words, passages, what_to_do
from alexnet_mp.parallel.links import Link
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.performance.machine_check.settings import CheckResult

T = TypeVar("T")

WARMUP_EXCHANGES = 2  # exchanges that are not timed: NCCL connects at the first


@dataclass(frozen=True)
class Speed:
    """What one exchange of a passage takes: each tower sends `sent` bytes to all its peers, and receives as many."""

    passage: Passage
    sent: int
    seconds: float

    @property
    def bytes_per_second(self) -> float:
        """Of one direction; the other is carried meanwhile."""
        return self.sent / self.seconds


def link_result(tested: LinkTest, mesh: Mesh, network: Network, images: int) -> CheckResult:
    """The self-test in words."""
    if tested.corrupt is None:
        return CheckResult("link", "not possible here", why_nothing_is_carried(network))
    tried = passages(network, images)
    transfers = len(tried) * mesh.placement.towers * (mesh.placement.towers - 1) * mesh.placement.replicas
    numbers = {"transfers": float(transfers), "corrupt_transfers": float(len(tested.corrupt))}
    if not tested.corrupt:
        return CheckResult("link", "pass", f"{transfers} transfers of patterns, every bit as sent", numbers)
    if tested.corrupt_through_host is None:
        found, direct = in_words(tested.corrupt), True
    else:
        direct = not tested.corrupt_through_host
        numbers["corrupt_transfers_through_host"] = float(len(tested.corrupt_through_host))
        host = "right, and what training falls back to" if direct else in_words(tested.corrupt_through_host)
        found = f"direct copies: {in_words(tested.corrupt)}; through host memory: {host}"
    return CheckResult("link", "fail", found, numbers, what_to_do(mesh.placement, direct))


def why_nothing_is_carried(network: Network) -> str:
    """Why this launch has no link to check, and how to have one."""
    towers = network.towers
    if towers == 1:
        return f"network {network.name} has one tower, nothing crosses"
    return (
        f"all towers are on one device, nothing is carried; start with two GPUs or more, or as torchrun "
        f"--nproc-per-node={towers}"
    )


def measured_speeds(mesh: Mesh, link: Link, network: Network, images: int, rounds: int) -> list[Speed]:
    """Time every passage of a step on `images` images; every process calls it, and gets the same.

    Last comes an exchange of a single float, whose time is the link's latency.
    """
    timed = [*passages(network, images, largest=None), Passage("one float", "forward", (1, 1))]
    each = 4 * (link.towers - 1)
    return [Speed(p, each * math.prod(p.shape), exchange_seconds(mesh, link, p, rounds)) for p in timed]


def speed_results(speeds: list[Speed]) -> list[CheckResult]:
    """One line a crossing; what returns in its backward pass is as large, and is measured for itself."""
    *crossings, single = speeds
    results = [
        CheckResult(
            f"{speed.passage.crossing} {speed.passage.direction}",
            "measured",
            f"{speed.sent:,} bytes each way in {1e3 * speed.seconds:.2f} ms: {speed.bytes_per_second / 1e9:.3g} GB/s",
            {"bytes": float(speed.sent), "seconds": speed.seconds, "bytes_per_second": speed.bytes_per_second},
        )
        for speed in crossings
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
