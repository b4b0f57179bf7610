"""Signals that ask a run to stop: all of it is saved, and it goes on as if nothing had been; also under torchrun."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from alexnet_mp.training.signals import STOPPING, noted_signals
from tests.support.disturbed import STOPPED, assert_ended_alike, at_step, running, train, trained
from tests.training.test_train import NARROW

RUN = (*NARROW, "recipe.epochs=1")
LONG = (*NARROW, "recipe.epochs=4", "checkpoint_steps=5", "threads=1")
EVERY = "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"


@contextmanager
def handled(number: signal.Signals, by: signal.Handlers) -> Iterator[None]:
    before = signal.signal(number, by)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_the_run_saves_stops_and_goes_on_to_the_same_end(
    number: signal.Signals, after_one_epoch: Path, tmp_path: Path
) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # under nohup a run is right to ignore SIGHUP
    try:
        with at_step(7, lambda: os.kill(os.getpid(), number)):
            stopped = train(tmp_path / "run", *RUN)
    finally:
        signal.signal(number, before)
    assert stopped.code == STOPPED
    assert f"asked to stop by {number.name}: saving after step 8" in stopped.stderr
    trained(tmp_path / "run", *RUN)
    assert_ended_alike(after_one_epoch, tmp_path / "run")


def test_a_hangup_that_nohup_ignores_stays_ignored(after_one_epoch: Path, tmp_path: Path) -> None:
    with handled(signal.SIGHUP, signal.SIG_IGN), at_step(7, lambda: os.kill(os.getpid(), signal.SIGHUP)):
        trained(tmp_path / "run", *RUN)
    assert_ended_alike(after_one_epoch, tmp_path / "run")


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_noted_by_name_and_its_handler_is_given_back(number: signal.Signals) -> None:
    with handled(number, signal.SIG_DFL):
        with noted_signals() as signals:
            assert signals.received == ""
            signal.raise_signal(number)
            assert signals.received == number.name
        assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "options"),
    [(signal.SIGHUP, ()), (signal.SIGUSR1, (EVERY,))],
)
def test_torchrun_passes_it_on_to_both_processes(
    number: signal.Signals, options: tuple[str, ...], tmp_path: Path
) -> None:
    whole = trained(tmp_path / "whole", *LONG)
    with running(tmp_path / "run", *LONG, processes=2, torchrun=options) as run:
        run.wait_for_step(7)
        run.process.send_signal(number)
        finished = run.finish()
    assert finished.code == 1, "torchrun's own code"
    assert f"asked to stop by {number.name}: saving after step" in finished.stderr
    trained(tmp_path / "run", *LONG)
    assert_ended_alike(whole, tmp_path / "run")


@pytest.mark.slow
def test_torchrun_dies_of_sigusr1_that_it_was_not_told_to_handle_and_leaves_its_processes(tmp_path: Path) -> None:
    with running(tmp_path / "run", *LONG, processes=2) as run:
        run.wait_for_step(7)
        workers = run.workers()
        run.process.send_signal(signal.SIGUSR1)
        assert run.process.wait(10) == -signal.SIGUSR1
        assert [rank for rank, pid in workers.items() if Path(f"/proc/{pid}").exists()] == [0, 1]
        run.finish()  # their streams end with them
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("options", "stops"), [((), True), (("--signals-to-handle=SIGTERM,SIGINT,SIGQUIT",), False)])
def test_under_nohup_torchrun_passes_a_hangup_on_unless_it_is_told_otherwise(
    options: tuple[str, ...], stops: bool, tmp_path: Path
) -> None:
    with handled(signal.SIGHUP, signal.SIG_IGN):
        process = running(tmp_path / "run", *LONG, processes=2, torchrun=options)
        run = process.__enter__()
    try:
        run.wait_for_step(7)
        for pid in (run.process.pid, *(() if stops else run.workers().values())):
            os.kill(pid, signal.SIGHUP)
        assert run.finish().code == int(stops)
    finally:
        process.__exit__(None, None, None)
    assert (tmp_path / "run" / "summary.json").exists() is not stops
