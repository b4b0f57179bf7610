"""The link through host memory: parcels arrive where they were sent, and a GPU is waited for only when it must be."""

from contextlib import nullcontext
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import torch.distributed as dist

from alexnet_mp.parallel.host_link import HostLink
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.mesh import make_mesh
from alexnet_mp.parallel.placement import choose_placement
from tests.support.processes import run_processes


def host_link(towers: int) -> HostLink:
    launch = Launch.from_environment(dist.get_rank(), dist.get_world_size())
    link = make_mesh(choose_placement("distributed", "cpu", towers, launch), 30, "host").link()
    assert isinstance(link, HostLink)
    return link


def two_exchanges_at_once(late: bool) -> list[list[float]]:
    """What arrives by two posts of which the first is awaited last; with `late`, its copy is done only then."""
    link = host_link(3)
    copies = link._to_host
    if late:
        link._to_host = lambda parcels: (copies(parcels)[0], Mock())
    first = link.post([[torch.full((2,), 10.0 * link.tower + peer) for peer in (0, 1)]], "conv3", "forward")
    link._to_host = copies
    second = link.post([[torch.full((3,), 100.0 + link.tower)] * 2], "fc6", "forward")
    (of_second,), (of_first,) = second(), first()
    return [of_first[0].tolist(), of_first[1].tolist(), of_second[0].tolist(), of_second[1].tolist()]


@pytest.mark.parametrize("late", [False, True])
def test_parcels_reach_the_tower_and_the_exchange_that_they_were_sent_to(late):
    for tower, arrived in enumerate(run_processes(3, two_exchanges_at_once, late)):
        peers = [peer for peer in range(3) if peer != tower]
        places = [[other for other in range(3) if other != peer].index(tower) for peer in peers]
        firsts = [[10.0 * peer + place] * 2 for peer, place in zip(peers, places, strict=True)]
        assert arrived == [*firsts, *([100.0 + peer] * 3 for peer in peers)]


class Stream:
    """A queue of a GPU that is not there; it and its events note what happens in one list."""

    def __init__(self, name: str, events: list[str]) -> None:
        self.name, self.events = name, events

    def wait_stream(self, other: "Stream") -> None:
        self.events.append(f"{self.name} waits for {other.name}")

    def record_event(self) -> "Stream":
        return self

    def synchronize(self) -> None:
        self.events.append(f"host waits for {self.name}")


class Parcel:
    """A tensor in the memory of a GPU that is not there, or its copy in the host's."""

    device = torch.device("cuda", 0)

    def __init__(self, name: str, events: list[str]) -> None:
        self.name, self.events = name, events

    def copy_(self, other: "Parcel", non_blocking: bool) -> "Parcel":
        assert non_blocking
        self.events.append(f"copy {other.name}")
        return self

    def to(self, device: torch.device, non_blocking: bool) -> "Parcel":
        assert non_blocking
        self.events.append(f"copy {self.name}")
        return Parcel("received", self.events)

    def record_stream(self, stream: Stream) -> None:
        self.events.append(f"{self.name} kept for {stream.name}")


def test_a_gpu_is_waited_for_only_when_parcels_are_needed_and_copies_run_beside_its_own_work(monkeypatch):
    events: list[str] = []
    link: Any = HostLink.__new__(HostLink)
    link._stream = Stream("side", events)
    link._launch = lambda where, operations, tag: (
        events.append(f"{operations[0][0].__name__} {tag}") or (lambda: events.append("exchanged"))
    )
    monkeypatch.setattr("alexnet_mp.parallel.host_link._host_buffer", lambda parcel: Parcel("buffer", events))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: events.append(f"on {stream.name}") or nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("current", events))
    arrive = link._exchange([Parcel("half", events)], "crossing conv3, forward")
    posted = ["side waits for current", "on side", "copy half", "half kept for side", "irecv 1"]
    assert events == posted
    arrive()
    assert events[len(posted) :] == [
        *("host waits for side", "isend 1", "exchanged", "exchanged"),
        *("on side", "copy buffer", "current waits for side", "received kept for current"),
    ]
