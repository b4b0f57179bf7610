"""How long towers wait for each other: a link that notes when, and what its notes say once towers lie side by side."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from alexnet_mp.parallel.links import Direction, Link, Pending, Tensors


@dataclass(frozen=True)
class Exchange:
    """One exchange of one process, in seconds of a clock that all processes of a machine share.

    `begun` is when the process had its parcels ready, `posted` when they were on their way, and the wait is from when
    the process needed its peers' parcels until it had them.
    """

    crossing: str
    direction: Direction
    begun: float
    posted: float
    wait_began: float
    wait_ended: float


@dataclass(frozen=True)
class Waiting:
    """Seconds of one process. `exposed` is the wait after all towers had posted: what the link costs, not hidden.

    `skew` is the wait before that: a peer was late. `posting` is the time that launching the exchange held the process.
    """

    exposed: float
    skew: float
    posting: float

    def divided_by(self, steps: int) -> "Waiting":
        return Waiting(self.exposed / steps, self.skew / steps, self.posting / steps)


class TimedLink:
    """A link that carries parcels by another one, and notes every exchange that has arrived.

    While `silent`, it hands each tower its own parcels back, and carries and notes nothing. What a step takes longer
    with the link than without it is what its exchanges cost that nothing hides.

    The clock is `time.perf_counter`, which on Linux is the monotonic clock of the machine, so that the notes of its
    processes can be compared. For CPUs: on GPUs, post and wait return when the work is queued, so the notes would be of
    the queue and not of the link; nothing is noted there.
    """

    def __init__(self, link: Link) -> None:
        self.towers = link.towers
        self.local_towers = link.local_towers
        self.traffic = link.traffic
        self.exchanges: list[Exchange] = []
        self.silent = False
        self._link = link

    def post(self, outgoing: Tensors, crossing: str, direction: Direction) -> Pending:
        if self.silent:
            own = [[parcel.detach() for parcel in parcels] for parcels in outgoing]
            return lambda: own
        begun = time.perf_counter()
        arrival = self._link.post(outgoing, crossing, direction)
        posted = time.perf_counter()

        def arrive() -> Tensors:
            wait_began = time.perf_counter()
            parcels = arrival()
            wait_ended = time.perf_counter()
            if all(parcel.device.type == "cpu" for tower in outgoing for parcel in tower):
                self.exchanges.append(Exchange(crossing, direction, begun, posted, wait_began, wait_ended))
            return parcels

        return arrive


def waiting(processes: Sequence[Sequence[Exchange]]) -> list[dict[tuple[str, Direction], Waiting]]:
    """For each process, what it waited at each crossing and direction, all its exchanges there added.

    `processes[t]` are the exchanges of the process that holds tower t, in order; a single process holds all towers.
    The n-th exchange of a crossing and direction in one process is the n-th there in every other.
    """
    numbered = [_numbered(exchanges) for exchanges in processes]
    assert all(each.keys() == numbered[0].keys() for each in numbered), "towers took part in different exchanges"
    found = []
    for each in numbered:
        totals: dict[tuple[str, Direction], Waiting] = {}
        for key, mine in each.items():
            all_posted = max(other[key].posted for other in numbered)
            exposed = max(0.0, mine.wait_ended - max(mine.wait_began, all_posted))
            skew = max(0.0, mine.wait_ended - mine.wait_began - exposed)
            place = (mine.crossing, mine.direction)
            before = totals.get(place, Waiting(0.0, 0.0, 0.0))
            totals[place] = added([before, Waiting(exposed, skew, mine.posted - mine.begun)])
        found.append(totals)
    return found


def added(waits: Iterable[Waiting]) -> Waiting:
    """The sums of all waits."""
    each = list(waits)
    return Waiting(sum(w.exposed for w in each), sum(w.skew for w in each), sum(w.posting for w in each))


def _numbered(exchanges: Sequence[Exchange]) -> dict[tuple[str, Direction, int], Exchange]:
    numbered: dict[tuple[str, Direction, int], Exchange] = {}
    seen: dict[tuple[str, Direction], int] = {}
    for exchange in exchanges:
        place = (exchange.crossing, exchange.direction)
        seen[place] = seen.get(place, 0) + 1
        numbered[(*place, seen[place])] = exchange
    return numbered
