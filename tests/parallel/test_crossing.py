"""The crossing: the order of its events in both directions, its gradients, and the bytes that it moves."""

import threading
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import alexnet_mp
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel.crossing import Crossing
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.links import HalfPrecisionLink, LocalLink, ProcessLink
from alexnet_mp.parallel.mesh import make_mesh
from alexnet_mp.parallel.placement import Placement, choose_placement
from alexnet_mp.training.loss import LossOnEveryTower
from tests.support.transports import over, run_over

CPU = torch.device("cpu")


class RecordingLink(LocalLink):
    """A local link that notes when an exchange is launched, by which towers, and when somebody waits for it."""

    def __init__(self, towers: int, events: list[str]) -> None:
        super().__init__([CPU] * towers)
        self.events = events

    def post(self, outgoing, crossing, direction):
        senders = [tower for tower, parcels in enumerate(outgoing) if parcels]
        self.events.append(f"launch {direction} from {senders}")
        arrive = super().post(outgoing, crossing, direction)

        def wait(*towers):
            self.events.append(f"wait {direction}")
            return arrive(*towers)

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


@pytest.mark.parametrize("apart", [False, True])
def test_the_own_half_runs_between_launch_and_wait_in_both_directions(apart):
    events: list[str] = []
    crossing = Crossing("conv3", RecordingLink(2, events), has_backward=True, apart=apart)
    halves = [torch.ones(1, 3, requires_grad=True) for _ in range(2)]
    owns, handle = crossing.start(halves)
    partials = [OwnHalf.apply(own, events) for own in owns]
    peers = crossing.finish(handle)
    torch.autograd.backward([(p + 3 * peer).sum() for p, peer in zip(partials, peers, strict=True)])
    # One thread runs all of it, so nothing waits for a tower whose turn has not come.
    launches = ["launch backward from [1]", "launch backward from [0]"] if apart else ["launch backward from [0, 1]"]
    assert events == [
        "launch forward from [0, 1]",
        *["own half forward"] * 2,
        "wait forward",
        *launches,
        *["own half backward"] * 2,
        *["wait backward"] * len(launches) ** 2,
    ]
    assert all(torch.equal(half.grad, torch.full((1, 3), 5.0)) for half in halves)


def test_with_towers_apart_gradients_leave_before_the_other_tower_has_come_that_far():
    events: list[str] = []
    crossing = Crossing("conv3", RecordingLink(2, events), has_backward=True, apart=True)
    halves = [torch.ones(1, 3, requires_grad=True) for _ in range(2)]
    owns, handle = crossing.start(halves)
    peers = crossing.finish(handle)
    starts, finishes = ([tensor.grad_fn for tensor in tensors] for tensors in (owns, peers))
    assert len(set(starts)) == len(set(finishes)) == 2
    # Autograd runs every finish before any start, by what it knows of the graph alone.
    for start in starts:
        assert {node for finish in finishes for node, _ in finish.next_functions} >= {start}
    assert all({node for node, _ in finish.next_functions} == set(starts) for finish in finishes)
    for tower in (1, 0):  # as the threads of two devices do, whichever is faster
        events.clear()
        finishes[tower].apply(torch.ones(1, 3))
        assert events == [f"launch backward from [{tower}]"]
    for tower, start in enumerate(starts):
        *_, total = start.apply(torch.full((1, 3), 10.0), torch.empty(0), torch.empty(0))
        assert torch.equal(total, torch.full((1, 3), 11.0)), tower


def test_with_towers_apart_a_tower_without_a_loss_gets_its_peers_gradients_alone():
    gradients = []
    for apart in (False, True):
        crossing = Crossing("conv3", LocalLink([CPU] * 3), has_backward=True, apart=apart)
        halves = [torch.randn(2, 4, generator=torch.Generator().manual_seed(t)).requires_grad_() for t in range(3)]
        owns, handle = crossing.start(halves)
        peers = crossing.finish(handle)
        ((owns[1] * 2).sum() + (peers[1] ** 2).sum()).backward()
        gradients.append([half.grad for half in halves])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_two_devices_have_autograd_functions_of_their_own_and_one_device_has_not():
    for devices, posts in (("cpu:0", "cpu:1"), [[1], [0]] * 3), (("cpu:0", "cpu:0"), [[0, 1]] * 3):
        events: list[str] = []
        on = {tower: torch.device(device) for tower, device in enumerate(devices)}
        kind = "two_devices" if len(set(devices)) > 1 else "simulated"
        model = TowerModel(alexnet_mp.load_network("small"), Placement(kind, 2, on), RecordingLink(2, events), seed=0)
        losses = [each.sum() for each in model.tower_logits([torch.randn(2, 3, 16, 16)] * 2)]
        torch.autograd.backward(losses)
        launched = [event for event in events if event.startswith("launch backward")]
        assert launched == [f"launch backward from {towers}" for towers in posts]


class Parcel:
    """A gradient on a GPU that is not there: enough of a tensor for a link."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.streams: list[object] = []

    def numel(self) -> int:
        return 1

    element_size = numel

    def to(self, device: torch.device, non_blocking: bool) -> "Parcel":
        assert non_blocking
        return Parcel(device)

    def record_stream(self, stream: object) -> None:
        self.streams.append(stream)


class Stream:
    """A queue of a GPU that notes whom it waits for."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.waits_for = device, []

    def wait_stream(self, other: "Stream") -> None:
        self.waits_for.append(other)


@pytest.fixture
def streams(monkeypatch) -> dict[torch.device, Stream]:
    """The current streams of two GPUs that are not there."""
    current = {torch.device("cuda", index): Stream(torch.device("cuda", index)) for index in range(2)}
    default = dict(current)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current[device])
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: default[device])
    return current


def test_a_gradient_waits_for_its_own_gpu_alone_and_only_the_receiver_waits_for_it(streams):
    first, second = streams
    link = LocalLink([first, second])
    gradient = Parcel(second)
    pending = link.post([[], [gradient]], "conv3", "backward")
    (sending,) = gradient.streams
    assert sending.device == second and sending.waits_for == [streams[second]]
    assert streams[first].waits_for == streams[second].waits_for == []
    ((received,), others) = pending(0)
    assert others == [] and received.device == first and received.streams == [streams[first]]
    assert [stream.device for stream in streams[first].waits_for] == [first] and streams[second].waits_for == []


def test_another_stream_than_the_default_one_is_an_error(streams):
    first, second = streams
    link = LocalLink([first, second])
    link.post([[Parcel(first)], [Parcel(second)]], "conv3", "forward")()
    streams[second] = Stream(second)
    with pytest.raises(RuntimeError, match="the current stream of cuda:1 is not its default stream"):
        link.post([[Parcel(first)], [Parcel(second)]], "conv3", "forward")
    LocalLink([second, second])._check_stream(second)  # towers on one GPU may have any


class SlowLink(LocalLink):
    """A local link on which parcels arrive only after the own half has run: who waits for them first waits in vain."""

    def __init__(self, own_half_ran: dict[str, threading.Event]) -> None:
        super().__init__([CPU] * 2)
        self.own_half_ran = own_half_ran

    def post(self, outgoing, crossing, direction):
        arrive = super().post(outgoing, crossing, direction)
        carrier = threading.Thread(target=lambda: self.own_half_ran[direction].wait(20))
        carrier.start()

        def wait(*towers):
            carrier.join()
            assert self.own_half_ran[direction].is_set(), f"nothing ran while the {direction} parcels were on their way"
            return arrive(*towers)

        return wait


class NotedOwnHalf(torch.autograd.Function):
    """Stands for a layer's own half, and says when it has run."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, ran: dict[str, threading.Event]) -> Tensor:
        ctx.ran = ran
        ran["forward"].set()
        return own * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.ran["backward"].set()
        return gradient * 2, None


@pytest.mark.parametrize("apart", [False, True])
def test_the_own_half_runs_while_a_slow_link_carries_the_parcels_in_both_directions(apart):
    ran = {"forward": threading.Event(), "backward": threading.Event()}
    crossing = Crossing("conv3", SlowLink(ran), has_backward=True, apart=apart)
    owns, handle = crossing.start([torch.ones(1, 3, requires_grad=True) for _ in range(2)])
    partials = [NotedOwnHalf.apply(own, ran) for own in owns]
    peers = crossing.finish(handle)
    assert not ran["backward"].is_set()
    torch.autograd.backward([(p + 3 * peer).sum() for p, peer in zip(partials, peers, strict=True)])


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("towers", [2, 4])
def test_peers_arrive_in_tower_order_and_gradients_return_to_their_towers(towers, apart):
    crossing = Crossing("conv3", LocalLink([CPU] * towers), has_backward=True, apart=apart)
    halves = [torch.full((1, 2), float(t), dtype=torch.float64, requires_grad=True) for t in range(towers)]
    owns, handle = crossing.start(halves)
    peers = crossing.finish(handle)
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
    owns, handle = crossing.start(partials)
    peers = crossing.finish(handle)
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


@over("gloo")
def test_a_step_sends_each_float_of_the_table_once(transport):
    floats = {"conv3": 128 * 3 * 3, "fc6": 128 * 1 * 1, "fc7": 256, "fc8": 10}
    for tower, (counted, really_sent) in enumerate(run_over(transport, 2, count_sent_bytes)):
        forward = {name: counted[tower, name, "forward"] for name in floats}
        backward = {name: counted[tower, name, "backward"] for name in floats if name != "fc8"}
        assert forward == {name: 6 * 4 * count for name, count in floats.items()}
        assert backward == {name: 6 * 4 * count for name, count in floats.items() if name != "fc8"}
        assert sum(counted.values()) == sum(forward.values()) + sum(backward.values()) == really_sent


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_what_crosses_and_nothing_else(dtype):
    crossing = Crossing("conv3", HalfPrecisionLink(LocalLink([CPU] * 2), dtype), has_backward=True)
    generator = torch.Generator().manual_seed(0)
    halves = [torch.randn(6, 5, generator=generator).requires_grad_() for _ in range(2)]
    gradients = [1e-4 * torch.randn(6, 5, generator=generator) for _ in range(2)]
    owns, handle = crossing.start(halves)
    peers = crossing.finish(handle)
    assert [torch.equal(peers[t], halves[1 - t].detach().to(dtype).float()) for t in range(2)] == [True, True]
    torch.autograd.backward([*owns, *peers], [*(torch.zeros(6, 5) for _ in owns), *gradients])
    half_a_unit = {torch.float16: 2**-11, torch.bfloat16: 2**-8}[dtype]  # in the last place, relative
    for tower in range(2):
        # Six images: gradients travel 8 times as large. Below 2^-14, float16's units are 2^-24.
        torch.testing.assert_close(halves[tower].grad, gradients[1 - tower], rtol=half_a_unit, atol=2**-25 / 8)


def half_precision_step() -> dict[str, Any]:
    launched = dist.is_initialized()
    launch = Launch.from_environment(dist.get_rank(), 2) if launched else Launch()
    placement = choose_placement("distributed" if launched else "simulated", "cpu", 2, launch)
    network = alexnet_mp.load_network("small")
    model = TowerModel(network, placement, make_mesh(placement, 30).link(), 0, crossing_dtype=torch.bfloat16)
    images = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    losses = LossOnEveryTower(model)([images] * len(placement.devices), [torch.arange(6)] * len(placement.devices), 0)
    torch.autograd.backward(losses)
    sent = {
        f"sent {name} {way}": torch.tensor(n) for (t, name, way), n in model.link.traffic.bytes_sent.items() if not t
    }
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    return gradients | sent | {f"loss {t}": loss.item() for t, loss in zip(placement.devices, losses, strict=True)}


@over("gloo")
def test_half_precision_crossings_are_alike_under_every_placement_and_halve_the_bytes(transport, one_thread):
    one = half_precision_step()
    two = {name: value for process in run_over(transport, 2, half_precision_step) for name, value in process.items()}
    assert one.keys() == two.keys()
    assert [name for name in one if not np.array_equal(one[name], two[name])] == []
    assert one["loss 0"] == one["loss 1"]  # partial logits cross unrounded
    floats = {"conv3": 128 * 3 * 3, "fc6": 128 * 1 * 1, "fc7": 256}
    for name, count in floats.items():
        assert one[f"sent {name} forward"] == one[f"sent {name} backward"] == 6 * 2 * count
    assert one["sent fc8 forward"] == 6 * 4 * 10
