"""What communication costs a step: each crossing against its own half's work, and the all-reduce against backward."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from alexnet_mp.network.costs import NetworkCost
from alexnet_mp.performance.cost_model.compute import RowTime
from alexnet_mp.performance.cost_model.hardware import DeviceLink

BUCKET_BYTES = 25 * 1024 * 1024  # DistributedDataParallel's bucket_cap_mb


@dataclass(frozen=True)
class Transfer:
    """One transfer of a step: how long it takes, and how much longer the step gets by it (`exposed`)."""

    name: str
    direction: str
    bytes_sent: float
    seconds: float
    exposed: float


def crossings(
    costs: NetworkCost, rows: Sequence[RowTime], link: DeviceLink, batch: int, bytes_of_a_value: int
) -> list[Transfer]:
    """The crossings of a step, forward in the order of the table and then backward in reverse.

    A tower computes its own half of the reading layer while the peers' half is on its way, in both directions; the
    partial logits, which are only added, have nothing to hide behind.
    """
    times = {row.name: row for row in rows}

    def transfers(direction: str) -> Iterator[Transfer]:
        for cost in costs.rows if costs.towers > 1 else ():
            row, floats = times[cost.name], getattr(cost, f"crossing_floats_{direction}")
            if floats:
                payload = (costs.towers - 1) * floats * batch * bytes_of_a_value
                seconds = link.seconds(payload)
                hidden = min(seconds, getattr(row, direction) * row.own_share if cost.reads == "both" else 0.0)
                exposed = seconds - hidden + link.compute_lost * hidden
                yield Transfer(cost.name, direction, payload, seconds, exposed)

    return [*transfers("forward"), *reversed(list(transfers("backward")))]


def all_reduce(
    rows: Sequence[RowTime], link: DeviceLink, members: int, bucket_bytes: int = BUCKET_BYTES
) -> list[Transfer]:
    """Data-parallel sums of the gradients, a transfer a bucket, in the order in which they are sent.

    The backward pass goes through the rows in reverse. A bucket starts when its last gradient is complete and the
    bucket before it is done; what runs on after the backward pass has ended is exposed.
    """
    if members == 1:
        return []
    buckets: list[tuple[str, int, float]] = []  # name of its last row, bytes, seconds after backward began
    clock, collected, last = 0.0, 0, ""
    for row in reversed(rows):
        clock += row.backward
        if row.gradient_bytes:
            collected, last = collected + row.gradient_bytes, row.name
        if collected >= bucket_bytes:
            buckets.append((last, collected, clock))
            collected = 0
    if collected:
        buckets.append((last, collected, clock))
    transfers, free = [], 0.0
    for name, payload, ready in buckets:
        seconds = link.all_reduce_seconds(payload, members)
        start = max(free, ready)
        free = start + seconds
        after = max(0.0, free - max(start, clock))
        exposed = after + link.compute_lost * (seconds - after)
        transfers.append(Transfer(name, "gradients", 2 * (members - 1) / members * payload, seconds, exposed))
    return transfers
