"""The crossing: where activations pass between towers, and their gradients return.

A crossing is a pair of autograd functions. `start` launches the exchange and returns at once; the layer computes its
own half; `finish` waits and hands over the peers' halves. Autograd runs the pair mirror-wise, so in the backward pass
`finish` launches the exchange of gradients, the own half's backward runs meanwhile, and `start` waits: overlap in
both directions.

    forward     start ──► own half ──► finish ──► rest
                  └─ activations travel ─┘
    backward    start ◄── own half ◄── finish ◄── rest
                  └── gradients travel ──┘
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from alexnet_mp.common.device import upload
from alexnet_mp.parallel.links import Direction, Link, Pending, Tensors


class Crossing:
    """A point of the network where activations pass between towers.

    With `has_backward=False` gradients do not return: at the sum of partial logits every tower computes the same loss
    from the same logits, so the gradient of its own share is already there.
    """

    def __init__(self, name: str, link: Link, has_backward: bool) -> None:
        self.name = name
        self.has_backward = has_backward
        self._link = link

    def start(self, halves: Sequence[Tensor]) -> tuple[list[Tensor], "Handle"]:
        """Launch the exchange of the local towers' halves [N, ...]; return them, and a handle for `finish`.

        The layer must go on with the returned halves, not with its arguments: gradients meet there.
        """
        exchange = _Exchange(self._link, self.name)
        if not self.has_backward:
            exchange.launch("forward", _to_all_peers([half.detach() for half in halves], self._link.towers))
            return list(halves), Handle(exchange, None)
        token, *owns = _Start.apply(exchange, *halves)  # type: ignore[no-untyped-call]
        return owns, Handle(exchange, token)

    def finish(self, handle: "Handle") -> list[Tensor]:
        """Wait for the exchange; for each local tower return its peers' halves, joined in tower order on dim 1."""
        if handle.token is None:
            return _join(handle.exchange.arrive())
        return list(_Finish.apply(handle.exchange, handle.token))  # type: ignore[no-untyped-call]


class _Exchange:
    """One use of a crossing, forward and then backward; at most one set of parcels is on its way."""

    def __init__(self, link: Link, crossing: str) -> None:
        self.link = link
        self._crossing = crossing
        self._pending: Pending | None = None

    def launch(self, direction: Direction, outgoing: Tensors) -> None:
        self._pending = self.link.post(outgoing, self._crossing, direction)

    def arrive(self) -> Tensors:
        assert self._pending is not None, f"crossing {self._crossing} was finished before it was started"
        arrival, self._pending = self._pending, None
        return arrival()


@dataclass(frozen=True)
class Handle:
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


class _ReplicatedLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *logits: Tensor) -> Tensor:
        ctx.devices = [each.device for each in logits]
        return logits[0].view_as(logits[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(gradient.to(device) for device in ctx.devices)


def merge_replicated_logits(logits: Sequence[Tensor]) -> Tensor:
    """The logits that all local towers have alike, as one tensor whose gradient goes to each of them.

    For callers who want one loss; training takes a loss on every tower instead, and moves nothing.
    """
    if len(logits) == 1:
        return logits[0]
    same: Tensor = _ReplicatedLogits.apply(*logits)  # type: ignore[no-untyped-call]
    return same


def to_towers(tensor: Tensor, devices: Sequence[torch.device]) -> list[Tensor]:
    """The same tensor on each local tower's device: every tower of a replica sees the same images."""
    return [upload(tensor, device) for device in devices]


def _to_all_peers(halves: Sequence[Tensor], towers: int) -> Tensors:
    return [[half] * (towers - 1) for half in halves]


def _join(incoming: Tensors) -> list[Tensor]:
    return [parcels[0] if len(parcels) == 1 else torch.cat(parcels, dim=1) for parcels in incoming]
