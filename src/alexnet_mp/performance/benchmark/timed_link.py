"""How long towers wait for each other: a link that notes when, and what its notes say once towers lie side by side."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from alexnet_mp.parallel.links import Direction, Link, Pending, Tensors

Place = tuple[str, Direction]  # crossing and direction


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


class Waiting(NamedTuple):
    """Seconds of one process. `exposed` is the wait after all towers had posted: what the link costs, not hidden.

    `skew` is the wait before that: a peer was late. `posting` is the time that launching the exchange held the process.
    """

    exposed: float
    skew: float
    posting: float

    def divided_by(self, steps: int) -> "Waiting":
        return Waiting(*(seconds / steps for seconds in self))


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
            return lambda *_: own
        begun = time.perf_counter()
        arrival = self._link.post(outgoing, crossing, direction)
        posted = time.perf_counter()

        def arrive(*waiting: int) -> Tensors:
            wait_began = time.perf_counter()
            parcels = arrival(*waiting)
            wait_ended = time.perf_counter()
            if all(parcel.device.type == "cpu" for tower in outgoing for parcel in tower):
                self.exchanges.append(Exchange(crossing, direction, begun, posted, wait_began, wait_ended))
            return parcels

        return arrive


def waiting(processes: Sequence[Sequence[Exchange]]) -> list[dict[Place, Waiting]]:
    """For each process, what it waited at each crossing and direction, all its exchanges there added.

    `processes[t]` are the exchanges of the process that holds tower t, in order; a single process holds all towers.
    The n-th exchange of a crossing and direction in one process is the n-th there in every other.
    """
    by_place = [_by_place(exchanges) for exchanges in processes]
    numbers = [{place: len(exchanges) for place, exchanges in each.items()} for each in by_place]
    assert all(each == numbers[0] for each in numbers), "towers took part in different exchanges"
    all_posted = {  # when the last tower had posted, exchange by exchange
        place: [max(e.posted for e in towers) for towers in zip(*(each[place] for each in by_place), strict=True)]
        for place in by_place[0]
    }
    return [{place: added(map(_wait, mine, all_posted[place])) for place, mine in each.items()} for each in by_place]


def _wait(mine: Exchange, all_posted: float) -> Waiting:
    exposed = max(0.0, mine.wait_ended - max(mine.wait_began, all_posted))
    skew = max(0.0, mine.wait_ended - mine.wait_began - exposed)
    return Waiting(exposed, skew, mine.posted - mine.begun)


def _by_place(exchanges: Sequence[Exchange]) -> dict[Place, list[Exchange]]:
    found: dict[Place, list[Exchange]] = {}
    for exchange in exchanges:
        found.setdefault((exchange.crossing, exchange.direction), []).append(exchange)
    return found


def added(waits: Iterable[Waiting]) -> Waiting:
    """The sums of all waits."""
    return Waiting(*map(sum, zip(Waiting(0.0, 0.0, 0.0), *waits, strict=True)))
