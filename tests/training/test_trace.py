"""`profile.steps`: the trace of two processes has every crossing, and own halves lie inside of their flight."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from alexnet_mp.training.trace import traced_steps
from tests.support.processes import run_script_in
from tests.training.test_train import NARROW

STEPS = 2
PASSAGES = [  # of `small`
    *(f"{crossing} forward" for crossing in ("conv3", "fc6", "fc7", "fc8")),
    *(f"{crossing} backward" for crossing in ("fc7", "fc6", "conv3")),
]
OWN_HALF = {"conv3": "ConvolutionBackward0", "fc6": "MmBackward0", "fc7": "MmBackward0"}  # what autograd runs of it


def spans_of(events: list[dict], name: str) -> list[tuple[float, float]]:
    """Beginnings and ends, in order."""
    found = [each for each in events if each.get("ph") == "X" and each["name"] == name]
    return sorted((each["ts"], each["ts"] + each["dur"]) for each in found)


def test_every_crossing_of_a_step_of_two_processes_is_in_the_trace_and_own_halves_lie_inside_of_their_flight(tmp_path):
    run = tmp_path / "run"
    overrides = [f"run_dir={run}", f"profile.steps={STEPS}", "recipe.epochs=1", "device=cpu", *NARROW]
    run_script_in(2, "launch/train.py", overrides, tmp_path)
    assert {path.name for path in run.glob("*.json")} == {"trace.json", "trace-1.json", "summary.json"}
    for name in ("trace.json", "trace-1.json"):
        events = json.loads((run / name).read_text())["traceEvents"]
        assert len({each["pid"] for each in events if each.get("cat") == "user_annotation"}) == 1
        for passage in PASSAGES:
            starts, waits = spans_of(events, f"start {passage}"), spans_of(events, f"wait {passage}")
            assert len(starts) == len(waits) == STEPS, passage
            flights = [(start[0], wait[1]) for start, wait in zip(starts, waits, strict=True)]
            tracks = [each for each in events if each["name"] == f"crossing {passage}"]
            assert sorted(each["ts"] for each in tracks) == [time for flight in flights for time in flight]
            assert Counter(each["ph"] for each in tracks) == {"b": STEPS, "e": STEPS}
            assert len({each["id"] for each in tracks}) == STEPS
            crossing, direction = passage.split()
            if direction == "forward":
                own_halves = spans_of(events, f"own half {passage}")
            else:
                computed = [span for span in spans_of(events, OWN_HALF[crossing]) if _within(span, flights)]
                assert {_flight_of(span, flights) for span in computed} == set(flights), "the own half ran elsewhere"
                track = sorted(each["ts"] for each in events if each["name"] == f"own half {passage}")
                own_halves = list(zip(track[::2], track[1::2], strict=True))
                assert all(_within(span, own_halves) for span in computed)
            assert len(own_halves) == STEPS
            for own_half, start, wait in zip(own_halves, starts, waits, strict=True):
                assert start[1] <= own_half[0] <= own_half[1] <= wait[0], passage


def _flight_of(span: tuple[float, float], flights: list[tuple[float, float]]) -> tuple[float, float] | None:
    return next((flight for flight in flights if flight[0] <= span[0] and span[1] <= flight[1]), None)


def _within(span: tuple[float, float], flights: list[tuple[float, float]]) -> bool:
    return _flight_of(span, flights) is not None


class Model:
    """What a trace needs of a model, on a GPU that is not there."""

    placement = SimpleNamespace(launch=SimpleNamespace(rank=3), on_gpus=True)

    def name_spans(self, span) -> None:
        self.span = span


def test_on_gpus_a_snapshot_of_the_memory_lies_beside_the_trace_and_a_full_disk_is_a_warning(
    monkeypatch, tmp_path, caplog
):
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: [{"device": 0, "total_size": 2097152}])
    for folder in (tmp_path, tmp_path / "full"):  # which is not there
        model = Model()
        with traced_steps(1, model, folder) as step_done:
            for _ in range(4):
                with model.span("step"):
                    torch.ones(2).sum()
                step_done()
    assert json.loads((tmp_path / "memory-3.json").read_text()) == [{"device": 0, "total_size": 2097152}]
    events = json.loads((tmp_path / "trace-3.json").read_text())["traceEvents"]
    assert len(spans_of(events, "step")) == 1
    assert [each for each in caplog.messages if each.startswith("trace      not written: ")]


def test_without_profile_steps_nothing_is_asked_of_the_model_or_the_profiler(monkeypatch, tmp_path):
    monkeypatch.setattr("alexnet_mp.training.trace.profile", lambda **_: pytest.fail("a profiler"))
    with traced_steps(None, None, tmp_path) as step_done:
        step_done()
    assert not list(tmp_path.iterdir())
