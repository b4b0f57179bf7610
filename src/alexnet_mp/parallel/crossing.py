"""The crossing: where activations pass between towers, and their gradients return.

A crossing is a pair of autograd functions. `start` launches the exchange and returns at once; the layer computes its
own half; `finish` waits and hands over the peers' halves. Autograd runs the pair mirror-wise, so in the backward pass
`finish` launches the exchange of gradients, the own half's backward runs meanwhile, and `start` waits: overlap in
both directions.

    forward     start ──► own half ──► finish ──► rest
                  └─ activations travel ─┘
    backward    start ◄── own half ◄── finish ◄── rest
                  └── gradients travel ──┘

Autograd has a thread for each GPU. If the local towers are apart, on several devices, each has a pair of its own, so
that its gradients leave as soon as they are there. Tokens alone order the pairs' backward passes: every `finish` before
any `start`. So no thread waits for another, and one thread can run all of them.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from alexnet_mp.common.device import upload
from alexnet_mp.parallel.links import Link, Pending, Tensors

Part = tuple[int, ...]  # local towers, counted from 0, that cross in one pair of autograd functions
Span = Callable[[str], AbstractContextManager[object]]  # names a stretch of time, as record_function does


class Crossing:
    """A point of the network where activations pass between towers.

    With `has_backward=False` gradients do not return: at the sum of partial logits every tower computes the same loss
    from the same logits, so the gradient of its own share is already there.
    """

    def __init__(self, name: str, link: Link, has_backward: bool, apart: bool = False) -> None:
        """`apart`: each local tower is on a device of its own."""
        self.name = name
        self.has_backward = has_backward
        self.span: Span = nullcontext  # which names nothing
        self._link = link
        places = range(len(link.local_towers))
        self._parts: list[Part] = [(place,) for place in places] if apart else [tuple(places)]

    def start(self, halves: Sequence[Tensor]) -> tuple[list[Tensor], "Handle"]:
        """Launch the exchange of the local towers' halves [N, ...]; return them, and a handle for `finish`.

        The layer must go on with the returned halves, not with its arguments: gradients meet there.
        """
        outgoing = _to_all_peers([half.detach() for half in halves], self._link.towers)
        with self.span(f"start {self.name} forward"):
            arrival = self._link.post(outgoing, self.name, "forward")
        if not self.has_backward:
            return list(halves), Handle(arrival)
        exchange = _ReturnOfGradients(self._link, self.name, self._parts, self.span)
        owns: list[Tensor] = []
        tokens = []
        for part in self._parts:
            started = _Start.apply(exchange, part, *(halves[place] for place in part))  # type: ignore[no-untyped-call]
            owns += started[: len(part)]
            tokens.append(started[len(part) :])
        return owns, Handle(arrival, exchange, list(zip(*tokens, strict=True)))

    def finish(self, handle: "Handle") -> list[Tensor]:
        """Wait for the exchange; for each local tower return its peers' halves, joined in tower order on dim 1."""
        with self.span(f"wait {self.name} forward"):
            incoming = handle.arrival()
        if not handle.tokens:
            return _join(incoming)
        joined: list[Tensor] = []
        for part, tokens in zip(self._parts, handle.tokens, strict=True):
            parcels = [incoming[place] for place in part]
            joined += _Finish.apply(handle.exchange, part, parcels, *tokens)  # type: ignore[no-untyped-call]
        return joined


class _ReturnOfGradients:
    """The backward pass of one use of a crossing, part by part."""

    def __init__(self, link: Link, crossing: str, parts: Sequence[Part], span: Span) -> None:
        self.link = link
        self.parts = parts
        self._crossing, self._span = crossing, span
        # For each part, what is on its way to it, by the part that has sent it.
        self._returning: dict[Part, dict[Part, Pending]] = {part: {} for part in parts}

    def send_back(self, part: Part, outgoing: Sequence[list[Tensor]]) -> None:
        """Launch the gradients that a part has for its peers."""
        of_all: Tensors = [[] for _ in self.link.local_towers]
        for place, parcels in zip(part, outgoing, strict=True):
            of_all[place] = parcels
        with self._span(f"start {self._crossing} backward"):
            pending = self.link.post(of_all, self._crossing, "backward")
        for returning in self._returning.values():
            returning[part] = pending

    def returned(self, part: Part) -> Tensors:
        """Wait for the gradients of a part's halves; every part that has any to send has sent them."""
        returning, self._returning[part] = self._returning[part], {}
        waiting = part if len(self.parts) > 1 else ()
        with self._span(f"wait {self._crossing} backward"):
            arrived = [returning[sender](*waiting) for sender in sorted(returning)]
        return [[parcel for each in arrived for parcel in each[place]] for place in part]


@dataclass(frozen=True)
class Handle:
    """What `finish` needs of `start`: the exchange in both directions, and the tokens of each of finish's parts.

    A token is an output of one part of start and an input of one part of finish, so autograd runs finish's backward
    before start's. Tokens are on the CPU: between GPUs, autograd would have the one wait for the other.
    """

    arrival: Pending
    exchange: _ReturnOfGradients | None = None
    tokens: list[tuple[Tensor, ...]] = field(default_factory=list)


class _Start(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, exchange: _ReturnOfGradients, part: Part, *halves: Tensor) -> tuple[Tensor, ...]:
        ctx.exchange, ctx.part = exchange, part
        return *(half.view_as(half) for half in halves), *_tokens(exchange)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        totals = []
        for place, own, from_peers in zip(ctx.part, gradients, ctx.exchange.returned(ctx.part), strict=False):
            tower = ctx.exchange.link.local_towers[place]
            # In tower order, because float addition is not associative.
            parts = [*from_peers[:tower], own, *from_peers[tower:]]
            totals.append(sum(parts[1:], start=parts[0]))
        return None, None, *totals


class _Finish(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, exchange: _ReturnOfGradients, part: Part, incoming: Tensors, *tokens: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.exchange, ctx.part = exchange, part
        return tuple(_join(incoming))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *peer_gradients: Tensor) -> tuple[Tensor | None, ...]:
        peers = ctx.exchange.link.towers - 1
        ctx.exchange.send_back(ctx.part, [list(gradient.chunk(peers, dim=1)) for gradient in peer_gradients])
        return None, None, None, *_tokens(ctx.exchange)


def _tokens(exchange: _ReturnOfGradients) -> list[Tensor]:
    return [torch.empty(0, device="cpu") for _ in exchange.parts]


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
