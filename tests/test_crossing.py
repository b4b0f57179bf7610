"""The crossing: the order of its events in both directions, its gradients, and the bytes that it moves."""

from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import alexnet_mp
from alexnet_mp.crossing import Crossing, LocalLink, ProcessLink
from tests.processes import run_processes

CPU = torch.device("cpu")


class RecordingLink(LocalLink):
    """A local link that notes when an exchange is launched and when somebody waits for it."""

    def __init__(self, towers: int, events: list[str]) -> None:
        super().__init__([CPU] * towers)
        self.events = events

    def post(self, outgoing, crossing, direction):
        self.events.append(f"launch {direction}")
        arrive = super().post(outgoing, crossing, direction)

        def wait():
            self.events.append(f"wait {direction}")
            return arrive()

        return wait


class OwnHalf(torch.autograd.Function):
    """Stands for a layer's own half: doubles, and notes when it runs."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, events: list[str]) -> Tensor:
        ctx.events = events
        events.append("own half forward")
        return own * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.events.append("own half backward")
        return gradient * 2, None


def test_the_own_half_runs_between_launch_and_wait_in_both_directions():
    events: list[str] = []
    crossing = Crossing("conv3", RecordingLink(2, events), has_backward=True)
    halves = [torch.ones(1, 3, requires_grad=True) for _ in range(2)]
    owns, ticket = crossing.start(halves)
    partials = [OwnHalf.apply(own, events) for own in owns]
    peers = crossing.finish(ticket)
    torch.autograd.backward([(p + 3 * peer).sum() for p, peer in zip(partials, peers, strict=True)])
    own_halves = ["own half forward"] * 2, ["own half backward"] * 2
    assert events == [
        "launch forward",
        *own_halves[0],
        "wait forward",
        "launch backward",
        *own_halves[1],
        "wait backward",
    ]
    assert all(torch.equal(half.grad, torch.full((1, 3), 5.0)) for half in halves)


@pytest.mark.parametrize("towers", [2, 4])
def test_peers_arrive_in_tower_order_and_gradients_return_to_their_towers(towers):
    crossing = Crossing("conv3", LocalLink([CPU] * towers), has_backward=True)
    halves = [torch.full((1, 2), float(t), dtype=torch.float64, requires_grad=True) for t in range(towers)]
    owns, ticket = crossing.start(halves)
    peers = crossing.finish(ticket)
    for tower, peer in enumerate(peers):
        assert peer.tolist() == [[float(t) for t in range(towers) if t != tower for _ in range(2)]]
    # Tower t weighs its own half by 1000 and everything from its peers by 10^t: each gradient tells who it came from.
    losses = [1000 * own.sum() + 10**t * peer.sum() for t, (own, peer) in enumerate(zip(owns, peers, strict=True))]
    torch.autograd.backward(losses)
    for tower, half in enumerate(halves):
        assert torch.all(half.grad == 1000 + sum(10**t for t in range(towers) if t != tower))


def test_the_sum_of_logits_lets_no_gradient_cross():
    link = LocalLink([CPU] * 2)
    crossing = Crossing("fc8", link, has_backward=False)
    partials = [torch.ones(1, 3, requires_grad=True) for _ in range(2)]
    owns, ticket = crossing.start(partials)
    peers = crossing.finish(ticket)
    torch.autograd.backward([(own + peer).sum() for own, peer in zip(owns, peers, strict=True)])
    assert all(torch.equal(partial.grad, torch.ones(1, 3)) for partial in partials)
    assert {direction for _, _, direction in link.traffic.bytes_sent} == {"forward"}


def test_one_loss_on_the_joined_logits_gives_the_gradients_of_a_loss_on_every_tower():
    images, label = torch.randn(2, 3, 16, 16), torch.tensor([1, 2])
    gradients = []
    for joined in (True, False):
        model = alexnet_mp.build_model("small").eval()
        logits = [model(images)] if joined else model.tower_logits([images, images])
        torch.autograd.backward([torch.nn.functional.cross_entropy(each, label) for each in logits])
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def count_sent_bytes() -> tuple[dict[tuple[int, str, str], int], int]:
    """One training step of `small` in a real process; the link's own count, and what really went to the group."""
    sent = []
    original = dist.batch_isend_irecv

    def counting(operations):
        sent.extend(op.tensor.numel() * op.tensor.element_size() for op in operations if op.op is dist.isend)
        return original(operations)

    model = alexnet_mp.build_model("small", "distributed")
    with patch.object(dist, "batch_isend_irecv", counting):
        torch.nn.functional.cross_entropy(model(torch.randn(6, 3, 16, 16)), torch.arange(6)).backward()
    assert isinstance(model.link, ProcessLink)
    return dict(model.link.traffic.bytes_sent), sum(sent)


def test_a_step_sends_each_float_of_the_table_once():
    floats = {"conv3": 128 * 3 * 3, "fc6": 128 * 1 * 1, "fc7": 256, "fc8": 10}
    for tower, (counted, really_sent) in enumerate(run_processes(2, count_sent_bytes)):
        forward = {name: counted[tower, name, "forward"] for name in floats}
        backward = {name: counted[tower, name, "backward"] for name in floats if name != "fc8"}
        assert forward == {name: 6 * 4 * count for name, count in floats.items()}
        assert backward == {name: 6 * 4 * count for name, count in floats.items() if name != "fc8"}
        assert sum(counted.values()) == sum(forward.values()) + sum(backward.values()) == really_sent
