"""A step on two devices: whatever a stream uses is ordered after what others did to it; what breaks that is found."""

import pytest

from alexnet_mp import load_network
from alexnet_mp.network.table import Network, parse_network
from alexnet_mp.parallel import links
from alexnet_mp.parallel.links import LocalLink
from tests.support.happens_before import DEVICES, StandInStream, Watch, watched_step


def short_network() -> Network:
    """Two crossings that return gradients, of maps and of vectors, and the sum of the logits."""
    weighted = {"std": "he", "bias": 0}
    return parse_network(
        {
            "name": "short",
            "towers": 2,
            "image": [3, 8, 8],
            "classes": 4,
            "layers": {
                "conv1": {"kind": "conv", "kernels": 4, "size": 3, "reads": "image", **weighted},
                "relu1": {"kind": "relu"},
                "conv2": {"kind": "conv", "kernels": 4, "size": 3, "reads": "both", **weighted},
                "relu2": {"kind": "relu"},
                "fc3": {"kind": "fc", "units": 8, "reads": "both", **weighted},
                "relu3": {"kind": "relu"},
                "fc4": {"kind": "classifier", **weighted},
            },
        }
    )


class OnTheWrongStream(LocalLink):
    """Copies on the sender's stream for what it receives, which waits for nothing that the sender computes."""

    def _copy_directly(self, parcel, device):
        self._sending, sending = self._receiving, self._sending
        sending[parcel.device].wait_stream(links.STREAMS.current_stream(parcel.device))
        with links.STREAMS.stream(self._receiving[device]), links.STREAMS.stream(self._sending[parcel.device]):
            copy = parcel.to(device, non_blocking=True)
        parcel.record_stream(self._sending[parcel.device])
        self._sending = sending
        return copy


class SendsGradientsTooEarly(LocalLink):
    """Launches the copy of a gradient before the last kernel that writes it."""

    def post(self, outgoing, crossing, direction):
        pending = super().post(outgoing, crossing, direction)
        if direction == "backward":
            for parcel in (parcel for parcels in outgoing for parcel in parcels):
                parcel.mul_(1)
        return pending


class OnAnyStream(LocalLink):
    """Does not look at the current stream."""

    def _check_stream(self, device):
        pass


def leaving_out(monkeypatch, method: str, which) -> None:
    """Have a method of streams, or `Watch.record_stream`, do nothing where `which` says so of its arguments."""
    owner = Watch if method == "record_stream" else StandInStream
    original = getattr(owner, method)
    monkeypatch.setattr(owner, method, lambda *arguments: None if which(*arguments) else original(*arguments))


FAULTS = {
    "the copy does not wait for the sender": (
        "wait_stream",
        lambda own, other: not own.is_default and other.is_default,
    ),
    "the receiver does not wait for the copy": (
        "wait_stream",
        lambda own, other: own.is_default and not other.is_default,
    ),
    "what is sent is freed under the copy": ("record_stream", lambda _watch, _tensor, stream: not stream.is_default),
    "what is received is freed in use": ("record_stream", lambda _watch, _tensor, stream: stream.is_default),
    "the copy is on a wrong stream": OnTheWrongStream,
    "a gradient leaves before it is written": SendsGradientsTooEarly,
    "a tower is not on its default stream": OnAnyStream,
}


@pytest.mark.parametrize("first", [0, 1])
def test_every_access_of_a_step_is_ordered_whichever_thread_runs_ahead(monkeypatch, first):
    watch = watched_step(monkeypatch, load_network("small"), first)
    assert watch.found == []
    # A thread goes on until the gradients that it needs have not left yet: at fc7, fc6, conv3, and then to the end.
    ahead, behind = DEVICES[first], DEVICES[1 - first]
    assert watch.turns == [ahead, behind] * 4


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_whichever_thread_runs_ahead(monkeypatch, fault):
    planted = FAULTS[fault]
    link = LocalLink
    if isinstance(planted, tuple):
        leaving_out(monkeypatch, *planted)
    else:
        link = planted
    for first in (0, 1):
        watch = watched_step(monkeypatch, short_network(), first, link, on_default=link is not OnAnyStream)
        assert watch.found, first


def test_a_stream_that_is_not_the_default_one_is_refused(monkeypatch):
    with pytest.raises(RuntimeError, match="the current stream of cpu:1 is not its default stream"):
        watched_step(monkeypatch, short_network(), first=0, on_default=False)
