"""A sweep's jobs as processes: signals, jobs side by side, jobs that a killed sweep left, and why a job failed."""

import os
import signal
from pathlib import Path

import pytest

from alexnet_mp.sweep.folder import sweep_lock
from alexnet_mp.sweep.jobs import Job
from alexnet_mp.sweep.processes import job_environment, last_error, start_process
from tests.support.sweeps import ALL, PYTHON, Fake, refusal, sweep, values, write_run

# Tells the sweep to stop, waits to be told itself, and says how often it was.
STOPS_THE_SWEEP = """
import os, signal, sys
told = []
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
signal.alarm(30)
os.kill(os.getppid(), int(sys.argv[1]))
told.append(signal.sigwait({signal.SIGTERM, signal.SIGINT}))
os.kill(os.getppid(), int(sys.argv[1]))
print("told", *map(int, told), "then", *map(int, signal.sigpending()))
sys.exit(5)
"""


@pytest.mark.parametrize(
    ("sent", "handed_on"),
    [
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGHUP, signal.SIGTERM),
        (signal.SIGUSR1, signal.SIGTERM),
    ],
)
def test_a_signal_reaches_the_running_job_once_and_no_other_is_started(
    sent: signal.Signals, handed_on: signal.Signals, tmp_path: Path
) -> None:
    started = []

    def fake(job: Job, processes: int) -> list[str]:
        started.append(job.name)
        return [*PYTHON, STOPS_THE_SWEEP, str(int(sent))]

    stray: list[int] = []
    before = signal.signal(sent, lambda number, _: stray.append(number))  # else a broken sweep would end the tests
    try:
        done, said = sweep(tmp_path, fake)
        assert not stray
        assert signal.getsignal(sent) is not before
    finally:
        signal.signal(sent, before)
    assert started == ["lrn/seed-0"]
    assert done.stopped == handed_on
    assert (tmp_path / "lrn" / "seed-0.log").read_text() == f"told {int(handed_on)} then\n"
    assert f"{handed_on.name}: waiting" in said[1]
    assert "[1/4] lrn/seed-0: stopped by" in said[2]
    assert [job["status"] for job in values(tmp_path)["jobs"]] == ["stopped", *["not started"] * 3]
    again = Fake(ALL)
    sweep(tmp_path, again)
    assert again.started == list(ALL)


def test_a_signal_ends_jobs_side_by_side_and_starts_no_other_in_their_place(tmp_path: Path) -> None:
    started = []

    def fake(job: Job, processes: int) -> list[str]:
        started.append(job.name)
        return [*PYTHON, STOPS_THE_SWEEP, str(int(signal.SIGTERM))]

    sweep(tmp_path, fake, parallel=2)
    assert started in (["lrn/seed-0"], ["lrn/seed-0", "lrn/seed-1"])


def test_a_signal_that_comes_while_a_job_is_being_started_reaches_it(tmp_path: Path) -> None:
    def fake(job: Job, processes: int) -> list[str]:
        os.kill(os.getpid(), signal.SIGTERM)
        return [*PYTHON, "import signal; signal.alarm(30); signal.pause()"]

    done, _ = sweep(tmp_path, fake)
    assert [job["exit_code"] for job in values(tmp_path)["jobs"]] == [-signal.SIGTERM, None, None, None]
    assert done.stopped == signal.SIGTERM


def test_jobs_run_side_by_side_where_asked_and_share_the_cores(tmp_path: Path, monkeypatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("alexnet_mp.sweep.processes.usable_cores", lambda: 8)
    assert job_environment(2, 2)["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in job_environment(1, 2)
    # Each end of a pipe opens only when the other is opened too.
    ends = {"lrn/seed-0": "r", "no_lrn/seed-0": "w"}

    def fake(job: Job, processes: int) -> list[str]:
        write_run(job, 0.5)
        pipe = f"signal.alarm(30); open({str(tmp_path / 'pipe')!r}, {ends[job.name]!r})"
        return [*PYTHON, f"import os, signal; {pipe}; print(os.environ['OMP_NUM_THREADS'])"]

    done, _ = sweep(tmp_path / "out", fake, seeds=[0], parallel=2)
    assert not done.failed
    assert (tmp_path / "out" / "lrn" / "seed-0.log").read_text() == "4\n"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert job_environment(2, 2)["OMP_NUM_THREADS"] == "3"


def test_a_job_that_a_killed_sweep_left_running_keeps_the_next_one_out(tmp_path: Path) -> None:
    job = Job("a", 0, tmp_path / "a" / "seed-0", (), {})
    with sweep_lock(tmp_path) as lock:
        process = start_process(job, [*PYTHON, "import signal; signal.pause()"], os.environ, lock)
        assert "another sweep works in" in refusal(tmp_path)
    assert "or a job that one has left running" in refusal(tmp_path)
    process.kill()
    process.wait()
    sweep(tmp_path, Fake(ALL))


BANNER = """
Traceback (most recent call last):
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
alexnet_mp.commands.train FAILED
"""


@pytest.mark.parametrize(
    ("printed", "line"),
    [
        ("error: recipe.epochs is 0\nW1122 torch.distributed.elastic: closing" + BANNER, "recipe.epochs is 0"),
        ("[rank1]: ValueError: peer\n[rank1]: more" + BANNER, "ValueError: peer"),
        ("10%\r20%\rsafetensors.SafetensorError: cut short" + BANNER, "safetensors.SafetensorError: cut short"),
        ("Killed\n", "Killed"),
        ("", "it printed nothing"),
        ("error: \x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("error: " + "x" * 400, "x" * 299 + "…"),
    ],
)
def test_the_line_that_says_why_a_job_failed(printed: str, line: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("error: of an earlier attempt\n" + printed)
    assert last_error(log, len("error: of an earlier attempt\n")) == line
    assert "cannot read its log" in last_error(tmp_path / "none", 0)
