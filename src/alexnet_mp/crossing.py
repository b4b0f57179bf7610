"""Every transfer between towers: the crossings, and the two links that carry them.

A crossing is a pair of autograd functions. `start` launches the exchange and returns at once; the layer computes its
own half; `finish` waits and hands over the peers' halves. Autograd runs the pair mirror-wise, so in the backward pass
`finish` launches the exchange of gradients, the own half's backward runs meanwhile, and `start` waits: overlap in
both directions.

    forward     start ──► own half ──► finish ──► rest
                  └─ activations travel ─┘
    backward    start ◄── own half ◄── finish ◄── rest
                  └── gradients travel ──┘
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from alexnet_mp.errors import PeerLost, in_short

Direction = Literal["forward", "backward"]
Parcels = list[list[Tensor]]  # for each local tower, one tensor for (or from) each of its peers, peers in tower order
Arrival = Callable[[], Parcels]


class Traffic:
    """Counts the bytes that each tower sends, by crossing and direction."""

    def __init__(self) -> None:
        self.bytes_sent: Counter[tuple[int, str, Direction]] = Counter()

    def add(self, tower: int, crossing: str, direction: Direction, parcels: Sequence[Tensor]) -> None:
        self.bytes_sent[tower, crossing, direction] += sum(p.numel() * p.element_size() for p in parcels)

    def sent_by(self, tower: int) -> int:
        """Bytes that `tower` has sent since the start."""
        return sum(count for (sender, _, _), count in self.bytes_sent.items() if sender == tower)


class Link(Protocol):
    """Carries parcels between towers.

    `post` launches the exchange of `outgoing` and returns at once; calling what it returns waits, and gives for each
    local tower the parcels that its peers sent to it.
    """

    towers: int
    local_towers: tuple[int, ...]
    traffic: Traffic

    def post(self, outgoing: Parcels, crossing: str, direction: Direction) -> Arrival: ...


def peers_of(tower: int, towers: int) -> list[int]:
    """The other towers, in tower order."""
    return [peer for peer in range(towers) if peer != tower]


class LocalLink:
    """The link of a process that holds all towers, on one device or on several.

    With several GPUs, run forward and backward on each GPU's default stream: autograd orders a node that spans two GPUs
    by the first one's stream alone.
    """

    def __init__(self, devices: Sequence[torch.device]) -> None:
        """`devices[t]` is tower t's. Set `through_host` where direct copies between them cannot be trusted."""
        self.towers = len(devices)
        self.local_towers = tuple(range(self.towers))
        self.devices = list(devices)
        self.through_host = False
        self.traffic = Traffic()
        apart = len(set(devices)) > 1 and all(device.type == "cuda" for device in devices)
        # A stream for each direction, so that what a GPU sends does not wait for what it receives.
        self._sending = {device: torch.cuda.Stream(device) for device in devices} if apart else {}
        self._receiving = {device: torch.cuda.Stream(device) for device in devices} if apart else {}

    def post(self, outgoing: Parcels, crossing: str, direction: Direction) -> Arrival:
        for tower, parcels in enumerate(outgoing):
            self.traffic.add(tower, crossing, direction, parcels)
        incoming = []
        for tower, device in enumerate(self.devices):
            sent_here = [
                outgoing[peer][peers_of(peer, self.towers).index(tower)] for peer in peers_of(tower, self.towers)
            ]
            incoming.append([self._copy(parcel, device) for parcel in sent_here])
        return lambda: self._arrive(incoming)

    def _copy(self, parcel: Tensor, device: torch.device) -> Tensor:
        if parcel.device == device:
            return parcel.detach()  # the same memory, but no part of the sender's graph
        if self.through_host:
            return parcel.cpu().to(device)  # waits for the sender, so it hides nothing
        return self._copy_directly(parcel, device)

    def _copy_directly(self, parcel: Tensor, device: torch.device) -> Tensor:
        if not self._sending:
            return parcel.to(device)
        # Beside both GPUs' current streams, so that the own half's kernels, queued next, do not wait behind the copy.
        source, target = self._sending[parcel.device], self._receiving[device]
        source.wait_stream(torch.cuda.current_stream(parcel.device))
        with torch.cuda.stream(target), torch.cuda.stream(source):
            copy = parcel.to(device, non_blocking=True)
        parcel.record_stream(source)
        return copy

    def _arrive(self, incoming: Parcels) -> Parcels:
        for device, stream in self._receiving.items():
            torch.cuda.current_stream(device).wait_stream(stream)
        for parcel in (parcel for parcels in incoming for parcel in parcels if parcel.device in self._receiving):
            parcel.record_stream(torch.cuda.current_stream(parcel.device))
        return incoming


class ProcessLink:
    """The link of a process that holds one tower: paired sends and receives on the towers' process group."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        """`group` holds the processes of one replica, in tower order."""
        self.towers = dist.get_world_size(group)
        self.tower = dist.get_rank(group)
        self.local_towers: tuple[int, ...] = (self.tower,)
        self.traffic = Traffic()
        self._group = group

    def post(self, outgoing: Parcels, crossing: str, direction: Direction) -> Arrival:
        parcels = [_as_laid_out(parcel) for parcel in outgoing[0]]
        self.traffic.add(self.tower, crossing, direction, parcels)
        # Towers have equal shapes, so what comes from a peer is shaped like what goes to it.
        incoming = [torch.empty_like(parcel) for parcel in parcels]
        peers = peers_of(self.tower, self.towers)
        operations = [
            dist.P2POp(operation, tensor, group=self._group, group_peer=peer)
            for peer, sent, received in zip(peers, parcels, incoming, strict=True)
            for operation, tensor in ((dist.isend, _in_memory_order(sent)), (dist.irecv, _in_memory_order(received)))
        ]
        where = f"crossing {crossing}, {direction}"
        with self._naming(where, peers):
            requests = dist.batch_isend_irecv(operations)
        # gloo has a request for each operation, NCCL one for all of them.
        of_peers = [[peer] for peer in peers for _ in range(2)] if len(requests) == len(operations) else [peers]

        def arrive() -> Parcels:
            for request, awaited in zip(requests, of_peers, strict=True):
                with self._naming(where, awaited):
                    request.wait()
            parcels.clear()  # held until here: a buffer must live as long as its send
            return [incoming]

        return arrive

    @contextmanager
    def _naming(self, where: str, peers: Sequence[int]) -> Iterator[None]:
        """Raise PeerLost, which names the crossing and the peers, where an exchange with them fails."""
        began = time.monotonic()
        try:
            yield
        except RuntimeError as error:
            who = " or ".join(f"tower {peer} (rank {dist.get_global_rank(self._group, peer)})" for peer in peers)
            waited = time.monotonic() - began
            raise PeerLost(f"{where}: {who} hung or is gone, after {waited:.1f} s ({in_short(error)})", True) from error


class Crossing:
    """A point of the network where activations pass between towers.

    With `has_backward=False` gradients do not return: at the sum of partial logits every tower computes the same loss
    from the same logits, so the gradient of its own share is already there.
    """

    def __init__(self, name: str, link: Link, has_backward: bool) -> None:
        self.name = name
        self.has_backward = has_backward
        self._link = link

    def start(self, halves: Sequence[Tensor]) -> tuple[list[Tensor], "Ticket"]:
        """Launch the exchange of the local towers' halves [N, ...]; return them, and a ticket for `finish`.

        The layer must go on with the returned halves, not with its arguments: gradients meet there.
        """
        exchange = _Exchange(self._link, self.name)
        if not self.has_backward:
            exchange.launch("forward", _to_all_peers([half.detach() for half in halves], self._link.towers))
            return list(halves), Ticket(exchange, None)
        token, *owns = _Start.apply(exchange, *halves)  # type: ignore[no-untyped-call]
        return owns, Ticket(exchange, token)

    def finish(self, ticket: "Ticket") -> list[Tensor]:
        """Wait for the exchange; for each local tower return its peers' halves, joined in tower order on dim 1."""
        if ticket.token is None:
            return _join(ticket.exchange.arrive())
        return list(_Finish.apply(ticket.exchange, ticket.token))  # type: ignore[no-untyped-call]


class _Exchange:
    """One use of a crossing, forward and then backward; at most one set of parcels is on its way."""

    def __init__(self, link: Link, crossing: str) -> None:
        self.link = link
        self._crossing = crossing
        self._arrival: Arrival | None = None

    def launch(self, direction: Direction, outgoing: Parcels) -> None:
        self._arrival = self.link.post(outgoing, self._crossing, direction)

    def arrive(self) -> Parcels:
        assert self._arrival is not None, f"crossing {self._crossing} was finished before it was started"
        arrival, self._arrival = self._arrival, None
        return arrival()


@dataclass(frozen=True)
class Ticket:
    """What `finish` needs of `start`: the exchange, and a token.

    The token is an output of start and the input of finish, so autograd runs finish's backward before start's.
    """

    exchange: _Exchange
    token: Tensor | None


class _Start(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, exchange: _Exchange, *halves: Tensor) -> tuple[Tensor, ...]:
        ctx.exchange = exchange
        exchange.launch("forward", _to_all_peers(halves, exchange.link.towers))
        return halves[0].new_empty(0), *(half.view_as(half) for half in halves)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _token: Tensor, *own_gradients: Tensor) -> tuple[Tensor | None, ...]:
        returned = ctx.exchange.arrive()
        totals = []
        for tower, own, from_peers in zip(ctx.exchange.link.local_towers, own_gradients, returned, strict=True):
            # In tower order, because float addition is not associative.
            parts = [*from_peers[:tower], own, *from_peers[tower:]]
            totals.append(sum(parts[1:], start=parts[0]))
        return None, *totals


class _Finish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, exchange: _Exchange, token: Tensor) -> tuple[Tensor, ...]:
        ctx.exchange = exchange
        return tuple(_join(exchange.arrive()))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *peer_gradients: Tensor) -> tuple[None, Tensor]:
        peers = ctx.exchange.link.towers - 1
        ctx.exchange.launch("backward", [list(gradient.chunk(peers, dim=1)) for gradient in peer_gradients])
        return None, peer_gradients[0].new_empty(0)


class _SameLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *logits: Tensor) -> Tensor:
        ctx.devices = [each.device for each in logits]
        return logits[0].view_as(logits[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(gradient.to(device) for device in ctx.devices)


def one_of_equal_logits(logits: Sequence[Tensor]) -> Tensor:
    """The logits that all local towers have alike, as one tensor whose gradient goes to each of them.

    For callers who want one loss; training takes a loss on every tower instead, and moves nothing.
    """
    if len(logits) == 1:
        return logits[0]
    same: Tensor = _SameLogits.apply(*logits)  # type: ignore[no-untyped-call]
    return same


def to_towers(tensor: Tensor, devices: Sequence[torch.device]) -> list[Tensor]:
    """The same tensor on each local tower's device: every tower of a replica sees the same images."""
    return [tensor.to(device, non_blocking=True) for device in devices]


def _to_all_peers(halves: Sequence[Tensor], towers: int) -> Parcels:
    return [[half] * (towers - 1) for half in halves]


def _as_laid_out(parcel: Tensor) -> Tensor:
    """The parcel without gaps: maps in channels_last, as the layers have them, so that sending them copies nothing."""
    return parcel.contiguous(memory_format=torch.channels_last if parcel.ndim == 4 else torch.contiguous_format)


def _in_memory_order(parcel: Tensor) -> Tensor:
    """A contiguous view, which is what a process group takes."""
    return parcel.permute(0, 2, 3, 1) if parcel.ndim == 4 else parcel


def _join(incoming: Parcels) -> list[Tensor]:
    return [parcels[0] if len(parcels) == 1 else torch.cat(parcels, dim=1) for parcels in incoming]
