"""Faults with real processes and real signals: kills, stops, hangs, damage. Nothing is lost, and nobody waits."""

import os
import random
import re
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from alexnet_mp.errors import PeerLost
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.links import LocalLink
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.parallel.placement import Placement, choose_placement
from alexnet_mp.parallel.wait import wait_with_timeout
from alexnet_mp.training.trainer import Trainer
from tests.support.checkpoints import narrow_network
from tests.support.disturbed import assert_ended_alike, pair, running
from tests.support.processes import CHECKOUT, run_script
from tests.training.test_train import NARROW

# Four epochs of 22 steps, so that there is time to disturb them, with a checkpoint after every five.
RUN = (*NARROW, "recipe.epochs=4", "checkpoint_steps=5")
LONG = (*NARROW, "recipe.epochs=8", "checkpoint_steps=7")  # about 176 steps: there is time to disturb it
STOPPED = 75
TIME_OUT = 4  # seconds
# The command over NCCL's manners, where a wait for a peer that hangs returns after a second.
STRICT_NCCL = (str(CHECKOUT / "tests" / "support" / "strict_nccl.py"), "1")
# How a process says whom it has missed, in a crossing or elsewhere.
MISSED = (
    r"error: (rank \d: )?after step \d+: "
    r"(crossing \w+, (for|back)ward: tower {0} \(rank {0}\) hung or is gone|.*; no answer from rank {0}$)"
)
ALONE = choose_placement("simulated", "cpu", 2, Launch())
AT_ONCE = 10.0  # seconds from the end of a step until the process has ended


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    return _run_here(tmp_path_factory.mktemp("undisturbed") / "run", *RUN)


@pytest.fixture(scope="module")
def undisturbed_long(tmp_path_factory) -> Path:
    return _run_here(tmp_path_factory.mktemp("undisturbed") / "long", *LONG)


def _run_here(folder: Path, *overrides: str) -> Path:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    finished = run_script("launch/train.py", [f"run_dir={folder}", *overrides], folder.parent)
    torch.set_num_threads(threads)
    assert finished.code == 0, finished.stderr
    return folder


def go_on(folder: Path, *overrides: str) -> None:
    """The same command again, in this process."""
    _run_here(folder, *overrides)


def test_a_run_that_is_killed_goes_on_from_its_newest_checkpoint(undisturbed, tmp_path):
    with running(tmp_path / "run", *RUN) as run:
        run.wait_for_step(13)
        run.kill_all()
    assert not (tmp_path / "run" / "summary.json").exists()
    go_on(tmp_path / "run", *RUN)
    assert "going on   from step-" in (tmp_path / "run" / "train.log").read_text()
    assert_ended_alike(undisturbed, tmp_path / "run")


def test_torchrun_brings_a_killed_process_back_and_the_run_goes_on(undisturbed, tmp_path):
    with running(tmp_path / "run", *RUN, processes=2, torchrun=("--max-restarts=1",)) as run:
        run.wait_for_step(8)
        os.kill(run.workers()[1], signal.SIGKILL)
        finished = run.finish()
    assert finished.code == 0, finished.stderr
    assert "going on   from step-" in finished.stderr
    lost = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert all(re.match(MISSED.format(1), line) for line in lost), lost
    assert_ended_alike(undisturbed, tmp_path / "run")


def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_step_with_everything_saved(undisturbed, tmp_path):
    with running(tmp_path / "run", *RUN, processes=2) as run:
        run.wait_for_step(7)
        os.kill(run.workers()[1], signal.SIGTERM)
        finished = run.finish()
    assert finished.code == 1, "torchrun's own code"
    # As often as torchrun sees one: it may end the other, which has saved everything too, before that has exited.
    assert set(re.findall(r"exitcode *: (\d+)", finished.stderr)) == {"75"}, finished.stderr
    (step,) = re.findall(r"^stopped after step (\d+), and saved", finished.stderr, re.MULTILINE)
    assert (tmp_path / "run" / "checkpoints" / f"step-{int(step):09d}-unvalidated").exists()
    go_on(tmp_path / "run", *RUN)
    assert_ended_alike(undisturbed, tmp_path / "run")


@pytest.mark.parametrize("hanging", [0, 1])
@pytest.mark.parametrize("within", [(), pytest.param(STRICT_NCCL, marks=pytest.mark.slow)], ids=["gloo", "strict NCCL"])
def test_a_peer_that_hangs_ends_the_other_within_the_time_out_by_name(within, hanging, tmp_path):
    left = 1 - hanging
    with pair(tmp_path / "run", *LONG, f"timeout_seconds={TIME_OUT}", within=within) as runs:
        runs[0].wait_for_step(3)
        runs[hanging].process.send_signal(signal.SIGSTOP)
        finished = runs[left].finish(deadline=TIME_OUT + 5)
    assert finished.code == 1
    (line,) = (line for line in finished.stderr.splitlines() if line.startswith("error: "))
    assert re.match(MISSED.format(hanging), line), line


@pytest.mark.slow
def test_over_strict_nccl_a_killed_process_is_named_and_the_run_goes_on_and_ends_as_if_it_had_not_been(
    undisturbed, tmp_path
):
    with pair(tmp_path / "run", *RUN, f"timeout_seconds={TIME_OUT}", within=STRICT_NCCL) as runs:
        runs[0].wait_for_step(8)
        runs[1].process.kill()
        finished = runs[0].finish(deadline=TIME_OUT + 10)
    assert finished.code == 1
    (line,) = (line for line in finished.stderr.splitlines() if line.startswith("error: "))
    assert re.match(MISSED.format(1), line), line
    with pair(tmp_path / "run", *RUN, within=STRICT_NCCL) as runs:
        for run in runs:
            finished = run.finish()
            assert finished.code == 0, finished.stderr
    assert_ended_alike(undisturbed, tmp_path / "run")


class Queue:
    """A GPU that has done what was asked of it when it has been asked `questions` times; 0: never. And its clock."""

    def __init__(self, questions: int) -> None:
        self.questions, self.now, self.marked = questions, 0.0, []

    def mark(self, device: torch.device) -> "Queue":
        self.marked.append(device)
        return self

    def query(self) -> bool:
        self.questions -= 1
        return self.questions == 0

    def pause(self, seconds: float) -> None:
        self.now += max(seconds, 0.5)

    def wait_with_timeout(self, device: torch.device, seconds: float) -> None:
        wait_with_timeout(device, seconds, self.mark, lambda: self.now, self.pause)


def test_a_gpu_is_waited_for_until_it_has_done_its_work_or_the_time_is_over():
    gpu = torch.device("cuda", 1)
    for questions, waited in ((1, 0.0), (5, 2.0)):
        queue = Queue(questions)
        queue.wait_with_timeout(gpu, seconds=2)
        assert (queue.now, queue.marked) == (waited, [gpu])
    queue = Queue(0)
    with pytest.raises(PeerLost, match="cuda:1 did not finish its work within 2 s: another process hung or is gone"):
        queue.wait_with_timeout(gpu, seconds=2)
    assert queue.now == 2.5
    queue = Queue(0)
    queue.wait_with_timeout(torch.device("cpu"), seconds=2)
    assert (queue.now, queue.marked) == (0.0, []), "a CPU is not even asked"


@pytest.mark.parametrize("processes", [1, 2])
def test_no_number_is_read_from_a_gpu_that_other_processes_may_keep_waiting(processes, monkeypatch):
    placement = Placement("distributed", 2, {0: torch.device("cuda", 0)}, launch=Launch(world_size=processes))
    trainer = object.__new__(Trainer)
    trainer._mesh = Mesh(placement, axes=object() if processes > 1 else None, timeout_seconds=7)
    trainer._devices, trainer._reads_every_loss = list(placement.devices.values()), False
    monkeypatch.setattr(Trainer, "_is_logged", lambda self: True)
    monkeypatch.setattr(Mesh, "sum_over_processes", lambda self, values: list(map(float, values)))
    checkpointer = Mock(**{"is_due.return_value": False, "has_failed.return_value": False})
    trainer._run = SimpleNamespace(signals=SimpleNamespace(received=""), checkpointer=checkpointer)
    trainer._model = TowerModel(narrow_network(), ALONE, LocalLink([torch.device("cpu")] * 2), seed=0)
    read: list[str] = []

    def never(device: torch.device, seconds: float) -> None:
        assert (str(device), seconds, read) == ("cuda:0", 7, [])
        raise PeerLost("it did not finish")

    def finite(tensor: torch.Tensor) -> bool:
        read.append("weights")
        return True

    monkeypatch.setattr("alexnet_mp.parallel.mesh.wait_with_timeout", never)
    monkeypatch.setattr("alexnet_mp.training.nonfinite._is_finite", finite)
    with pytest.raises(PeerLost) if processes > 1 else nullcontext():
        trainer._agree([torch.tensor(1.0)], step=1)
    with pytest.raises(PeerLost) if processes > 1 else nullcontext():
        trainer.save()
    assert bool(read) == (processes == 1)


class Noted:
    """A loss on a device, and the exchange of all processes: what happens to them, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def detach(self) -> "Noted":
        return self

    double = detach

    def item(self) -> float:
        self.events.append("read")
        return 3.0

    def sum_over_processes(self, values: list[float]) -> list[float]:
        self.events.append(f"agree on {len(values)}")
        return [float(value) for value in values]


def noting_trainer(device: str, logged: bool, monkeypatch) -> tuple[Trainer, Noted]:
    placement, noted = Placement("distributed", 2, {0: torch.device(device)}, launch=Launch(world_size=2)), Noted()
    trainer = object.__new__(Trainer)
    wait = lambda: noted.events.append("wait")  # noqa: E731
    exchange = noted.sum_over_processes
    trainer._mesh = SimpleNamespace(placement=placement, sum_over_processes=exchange, await_devices=wait)
    trainer._devices, trainer._reads_every_loss = list(placement.devices.values()), device == "cpu"
    checkpointer = SimpleNamespace(
        is_due=lambda step: True, has_failed=lambda: False, abort=lambda: pytest.fail("nothing has failed")
    )
    trainer._run = SimpleNamespace(signals=SimpleNamespace(received=""), checkpointer=checkpointer)
    monkeypatch.setattr(Trainer, "_is_logged", lambda self: logged)
    return trainer, noted


@pytest.mark.parametrize(
    ("device", "logged", "order"),
    [
        ("cuda", True, ["agree on 4", "wait", "read", "agree on 1"]),
        ("cuda", False, ["agree on 4"]),
        ("cpu", True, ["read", "agree on 4"]),
        ("cpu", False, ["read", "agree on 4"]),
    ],
)
def test_processes_agree_before_they_wait_for_a_gpu_and_once_a_step_without(device, logged, order, monkeypatch):
    trainer, noted = noting_trainer(device, logged, monkeypatch)
    agreed = trainer._agree([noted], step=1)
    assert noted.events == order
    assert (agreed.stop, agreed.save, agreed.loss) == (False, True, 3.0 if "read" in order else 0.0)


def test_a_process_that_is_gone_is_missed_before_the_gpu_that_waits_for_it(monkeypatch):
    trainer, noted = noting_trainer("cuda", True, monkeypatch)

    def gone(values: list[float]) -> list[float]:
        raise PeerLost("the agreement at the end of a step: another process hung or is gone")

    trainer._mesh.sum_over_processes = gone
    with pytest.raises(PeerLost, match="the agreement at the end of a step"):
        trainer._agree([noted], step=1)
    assert noted.events == []


@pytest.mark.slow
def test_of_four_processes_all_that_are_left_name_the_one_that_hangs(tmp_path):
    with running(tmp_path / "run", *LONG, f"timeout_seconds={TIME_OUT}", processes=4) as run:
        run.wait_for_step(3)
        os.kill(run.workers()[3], signal.SIGSTOP)
        finished = run.finish()
    lines = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert lines, finished.stderr
    for line in lines:
        assert re.search(r"after step \d+: .*(tower 1 \(rank 3\) hung or is gone|no answer from rank 3$)", line), line


@pytest.mark.slow  # torchrun waits 30 s for a process that hangs
def test_torchrun_leaves_no_orphan_of_a_peer_that_hangs(tmp_path):
    with running(tmp_path / "run", *LONG, f"timeout_seconds={TIME_OUT}", processes=2) as run:
        run.wait_for_step(3)
        workers = run.workers()
        os.kill(workers[1], signal.SIGSTOP)
        finished = run.finish()
    (line,) = (line for line in finished.stderr.splitlines() if line.startswith("error: "))
    assert re.match(MISSED.format(1), line), line
    assert [pid for pid in workers.values() if Path(f"/proc/{pid}").exists()] == []


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_killed_at_any_time_a_run_ends_as_if_it_had_not_been(number, undisturbed_long, tmp_path):
    draw = random.Random(number)
    processes, everything = 1 + number % 2, number % 4 < 2
    arguments = (*LONG, "seed=0")
    restarts = ("--max-restarts=1",) if processes == 2 and not everything else ()
    with running(tmp_path / "run", *arguments, processes=processes, torchrun=restarts) as run:
        if number >= 4:  # the first four at any time from the start on
            run.wait_for_step(1)
        time.sleep(draw.uniform(0, 8 if number < 4 else 4))
        if restarts:
            victim = draw.choice([0, 1])
            if victim in run.workers():
                os.kill(run.workers()[victim], signal.SIGKILL)
            finished = run.finish()
            assert finished.code == 0, finished.stderr
        else:
            run.kill_all()
    if not restarts:
        with running(tmp_path / "run", *arguments, processes=processes) as run:
            finished = run.finish()
            assert finished.code == 0, finished.stderr
    assert_ended_alike(undisturbed_long, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_stopped_at_any_time_a_run_is_saved_and_goes_on(number, undisturbed_long, tmp_path):
    draw = random.Random(100 + number)
    processes = 1 + number % 2
    with running(tmp_path / "run", *LONG, processes=processes) as run:
        run.wait_for_step(1)
        time.sleep(draw.uniform(0, 3))
        before, asked = len(run.metrics()), time.monotonic()
        os.kill(run.workers()[draw.randrange(processes)], draw.choice([signal.SIGTERM, signal.SIGINT]))
        run.wait_until(lambda: not run.workers(), "the end of the training processes", AT_ONCE)
        took = time.monotonic() - asked
        finished = run.finish()
    assert finished.code == (STOPPED if processes == 1 else 1), finished.stderr
    assert took < AT_ONCE, f"{before} lines before"
    with running(tmp_path / "run", *LONG, processes=processes) as run:
        assert run.finish().code == 0
    assert_ended_alike(undisturbed_long, tmp_path / "run")
