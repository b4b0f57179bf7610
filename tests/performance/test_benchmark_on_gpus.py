"""The benchmark on machines with any number of GPUs, by stand-ins: who runs, what is lost, and how steps are timed."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alexnet_mp import ConfigurationError, load_network
from alexnet_mp.common.cli import compose
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.parallel.placement import Placement
from alexnet_mp.performance.benchmark import rounds, worker
from alexnet_mp.performance.benchmark.matrix_bound import MATRIX_BOUND, Clock
from alexnet_mp.performance.benchmark.measurement import MatrixWork, Measurement, Sent, Task
from alexnet_mp.performance.benchmark.split_vs_single import run
from alexnet_mp.performance.benchmark.turn import VariantFailed
from alexnet_mp.performance.benchmark.variants import VARIANTS
from alexnet_mp.performance.benchmark.variants.train_step import TrainStep, train_steps

OF_SEVERAL_PROCESSES = ["split_two_processes", "ddp_stock", "ddp_stock_tuned", "ddp_ours", "pipeline_stock"]
SMALL = ["network=small", "batch_size=8", "rounds=2", "repeats=0"]


@dataclass
class Turns:
    """Stands for the processes of turns: every step takes 4 s, the products of one tower 1 s."""

    fails: Callable[[str, int], bool] = lambda name, turn: False
    started: list[tuple[str, int]] = field(default_factory=list)

    def run(self, task: Task, processes: int, where: str, _kind: type) -> list[Any]:
        self.started.append((task.variant, processes))
        turn = [name for name, _ in self.started].count(task.variant)
        if self.fails(task.variant, turn):
            raise VariantFailed(f"{where}: ended with exit code 1.\nThe end of what process 0 printed:\nCUDA error")
        if task.variant == MATRIX_BOUND:
            return [MatrixWork({"conv1 forward": 1.0}, {"conv1 forward": "whole, NCHW"}, 1)] * processes
        return [Measurement(1, 1.0, 2.0, 1.0, False, 1, 1, Sent(), 0, None, None, None, 1, ("GPU",))] * processes


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[Turns, dict[str, Any]]]:
    def measured(gpus: int, *overrides: str, turns: Turns | None = None) -> tuple[Turns, dict[str, Any]]:
        stand_in = turns or Turns()
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(rounds, "run_turn", stand_in.run)
        try:
            run(compose("benchmark/split_vs_single", [*SMALL, *overrides, f"json={tmp_path}/split.json"]))
        finally:
            path = tmp_path / "split.json"
            found = json.loads(path.read_text()) if path.exists() else {}
        return stand_in, found

    return measured


@pytest.mark.parametrize(("gpus", "processes"), [(0, 2), (1, 1), (2, 2), (8, 2)])
def test_the_bound_takes_one_process_if_gpus_are_fewer_than_towers(
    machine: Any, gpus: int, processes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    turns, report = machine(gpus)
    assert set(turns.started) >= {(MATRIX_BOUND, processes)}
    # Alone it has the products of both towers to do, one second each.
    assert report["matrix_bound_images_per_second"] == (8 / 2 if processes == 1 else 8 / 1)
    left_out = OF_SEVERAL_PROCESSES if gpus == 1 else []
    assert list(report["left_out"]) == left_out
    assert list(report["variants"]) == [name for name in VARIANTS if name not in left_out]
    printed = capsys.readouterr().out
    for name in left_out:
        assert f"{name} was left out: 2 processes on this node for 1 GPU" in printed


def test_a_named_variant_that_the_machine_cannot_hold_is_left_out_and_the_others_run(machine: Any) -> None:
    _, report = machine(1, "variants=[split_two_processes,single_stock]")
    assert list(report["variants"]) == ["single_stock"]
    assert "for 1 GPU" in report["left_out"]["split_two_processes"]


def test_a_machine_that_can_hold_none_of_them_is_refused(machine: Any) -> None:
    with pytest.raises(ConfigurationError, match="2 processes on this node for 1 GPU"):
        machine(1, "variants=[split_two_processes]")


@pytest.mark.parametrize("processes", ["null", "[1,2,4]"])
@pytest.mark.parametrize("failing", ["split_two_processes", MATRIX_BOUND])
def test_finished_turns_are_written_if_a_later_one_fails(
    machine: Any, failing: str, processes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = Turns(lambda name, turn: name == failing and turn == (4 if processes != "null" else 2))
    with pytest.raises(VariantFailed, match=f"round 2 of 2, {failing}.*: ended with exit code 1"):
        machine(0, f"processes={processes}", turns=turns)
    report = json.loads((tmp_path / "split.json").read_text())
    captured = capsys.readouterr()
    assert "CUDA error" in captured.err  # at once
    if processes != "null":
        assert [each["processes"] for each in report["processes"]] == [1, 2, 4]
        return
    assert list(report["variants"]) == list(VARIANTS)
    assert "ended with exit code 1" in report["left_out"][failing]
    for name, values in report["variants"].items():
        assert len(values["images_per_second_of_rounds"]) == (1 if name == failing else 2)
    assert f"{failing} was left out: round 2 of 2" in captured.out


@pytest.mark.parametrize("failing", ["single_stock", MATRIX_BOUND])
def test_what_fails_in_the_first_round_has_no_further_turn(
    machine: Any, failing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = Turns(lambda name, turn: name == failing)
    with pytest.raises(VariantFailed):
        machine(0, f"chart={tmp_path}/split.png", turns=turns)
    assert [name for name, _ in turns.started].count(failing) == 1
    report = json.loads((tmp_path / "split.json").read_text())
    assert list(report["variants"]) == [name for name in VARIANTS if name != failing]
    if failing == MATRIX_BOUND:
        assert report["matrix_bound"] is report["matrix_bound_images_per_second"] is None
        assert "matrix products alone: not measured" in capsys.readouterr().out
    assert (tmp_path / "split.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_finished_is_an_error_with_all_reasons(machine: Any) -> None:
    with pytest.raises(VariantFailed, match=r"single_stock: ended with exit code 1.*matrix_bound: ended"):
        machine(0, "variants=[single_stock]", turns=Turns(lambda name, turn: True))


class SimulatedGpu:
    """Stands for torch.cuda: work takes as long as it says, and waits of the host are counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        self.waits = 0
        gpu = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self, stream: object) -> None:
                self.seconds = gpu.seconds

            def elapsed_time(self, end: Any) -> float:
                return 1e3 * (end.seconds - self.seconds)

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
        monkeypatch.setattr(torch.cuda, "synchronize", self._wait)

    def _wait(self, device: object) -> None:
        self.waits += 1

    def step_of(self, forward: float, backward: float, update: float) -> TrainStep:
        """A step of one process on one GPU with these seconds."""
        weight = torch.ones(1, requires_grad=True)

        def work(images: list[torch.Tensor], labels: list[torch.Tensor], step: int) -> list[torch.Tensor]:
            self.seconds += forward
            loss = weight.sum()
            loss.register_hook(lambda gradient: self._work(backward))
            return [loss]

        optimizer = SimpleNamespace(step=lambda: self._work(update), zero_grad=lambda: None)
        placement = Placement("simulated", 1, {0: torch.device("cuda", 0)})
        return TrainStep(work, optimizer, Mesh(placement, None))  # type: ignore[arg-type]

    def _work(self, seconds: float) -> None:
        self.seconds += seconds


def test_a_gpu_is_waited_for_at_both_ends_of_a_round_and_phases_come_from_its_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = SimulatedGpu(monkeypatch)
    seconds, losses = train_steps(gpu.step_of(1.0, 2.0, 0.5), [], [], range(7))
    assert seconds == pytest.approx([7.0, 14.0, 3.5])
    assert gpu.waits == 2
    assert losses[0].item() == 1.0


def task(steps: int) -> Task:
    return Task("single_ours", load_network("small"), 8, steps, 0, False, "cuda", 1, 0, 60.0)


@pytest.mark.parametrize("step_seconds", [0.0004, 0.03, 5.0])
def test_a_round_on_a_gpu_takes_at_least_two_seconds(step_seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimulatedGpu(monkeypatch)
    train_step = gpu.step_of(step_seconds / 2, step_seconds / 4, step_seconds / 4)
    steps = worker.steps_of_a_round(task(steps=2), train_step, [], [])
    assert steps == 2 if step_seconds > 1 else 2.0 <= steps * step_seconds < 3.0


def test_a_round_on_a_cpu_has_the_steps_that_it_was_told() -> None:
    placement = Placement("simulated", 1, {0: torch.device("cpu")})
    train_step = TrainStep(lambda *_: pytest.fail("a step was timed"), None, Mesh(placement, None))  # type: ignore[arg-type]
    assert worker.steps_of_a_round(task(steps=2), train_step, [], []) == 2


def test_products_on_a_gpu_run_in_a_row_between_two_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimulatedGpu(monkeypatch)
    calls: list[int] = []
    Clock(torch.device("cuda", 0), lambda seconds: seconds).seconds(lambda: calls.append(gpu.waits), repeats=1)
    assert len(calls) == 100 and set(calls) == {1}


def test_a_batch_is_uploaded_once_for_all_towers_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    uploads: list[tuple[int, ...]] = []
    plain = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda t, *a, **k: (uploads.append(tuple(t.shape)), plain(t, *a, **k))[1])
    placement = Placement("simulated", 2, {0: device, 1: device}, replica=1, replicas=2)
    train_step = TrainStep(lambda *_: [], None, Mesh(placement, None))  # type: ignore[arg-type]
    images, labels = train_step.on_devices(torch.arange(8.0).view(4, 2, 1, 1), torch.arange(4))
    assert images[0] is images[1] and images[0].flatten().tolist() == [4, 5, 6, 7]
    assert labels[0].tolist() == [2, 3]
    assert uploads == [(2, 2, 1, 1), (2,)]
