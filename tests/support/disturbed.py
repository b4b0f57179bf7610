"""Training runs that are disturbed, as processes from outside or in this one, and whether two runs ended alike."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch

from alexnet_mp.checkpoint.files import load_checkpoint, load_momentum
from alexnet_mp.data.loader import Loader
from alexnet_mp.training.run_folder import RunFolder
from tests.support.processes import CHECKOUT, Finished, free_port, run_script

TRAIN = str(CHECKOUT / "launch" / "train.py")
STOPPED = 75  # the exit code of a run that was asked to stop
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


@dataclass(frozen=True)
class Running:
    """A command that runs, and the folder that it trains into."""

    process: "subprocess.Popen[str]"
    folder: Path

    def workers(self) -> dict[int, int]:
        """The process numbers of the training processes that are there now, by rank."""
        found = {}
        for pid in (self.process.pid, *_children(self.process.pid)):
            with contextlib.suppress(OSError, ValueError, IndexError):
                environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
                ranks = [entry.removeprefix("RANK=") for entry in environment if entry.startswith("RANK=")]
                command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                if TRAIN in command and "torch.distributed.run" not in command:
                    found[int(ranks[0]) if ranks else 0] = pid
        return found

    def metrics(self) -> list[dict]:
        """The whole lines that `metrics.jsonl` has now."""
        path = self.folder / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def wait_until(self, holds: Callable[[], bool], what: str, deadline: float = 60) -> None:
        """Wait for something that the run does; fail where it ends before, or does not do it in time."""
        end = time.monotonic() + deadline
        while not holds():
            assert self.process.poll() is None, f"ended before {what}:\n{self.finish().stderr}"
            assert time.monotonic() < end, f"not in {deadline} s: {what}"
            time.sleep(0.01)

    def wait_for_step(self, step: int) -> None:
        self.wait_until(lambda: any(line["step"] >= step for line in self.metrics()), f"step {step}")

    def kill_all(self) -> None:
        """What a power cut does to the command and its processes, where they have not ended."""
        if self.process.poll() is not None:
            return
        for pid in (self.process.pid, *self.workers().values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()

    def finish(self, deadline: float = 120) -> Finished:
        stdout, stderr = self.process.communicate(timeout=deadline)
        return Finished(self.process.returncode, stdout, stderr)


@contextlib.contextmanager
def running(folder: Path, *overrides: str, processes: int = 1, torchrun: tuple[str, ...] = ()) -> Iterator[Running]:
    """Start a training run of one thread a process; at the end nothing of it is left.

    One process is started plainly, several by torchrun; `torchrun` has more options for it.
    """
    launcher = [sys.executable]
    if processes > 1 or torchrun:
        launcher = [*TORCHRUN, f"--nproc-per-node={processes}", *torchrun]
    run = _start(launcher, folder, overrides, {})
    try:
        yield run
    finally:
        run.kill_all()


@contextlib.contextmanager
def pair(folder: Path, *overrides: str, within: Sequence[str] = ()) -> Iterator[list[Running]]:
    """A process for each of two towers, without torchrun around them, run by the script `within`; by rank."""
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    runs = [_start([sys.executable, *within], folder, overrides, {"RANK": rank, **together}) for rank in ("0", "1")]
    try:
        yield runs
    finally:
        for run in runs:
            run.kill_all()


def _start(launcher: list[str], folder: Path, overrides: Sequence[str], variables: dict[str, str]) -> Running:
    process = subprocess.Popen(
        [*launcher, TRAIN, f"run_dir={folder}", *overrides],
        cwd=folder.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return Running(process, folder)


def assert_ended_alike(one: Path, other: Path) -> None:
    """Metrics, but for speeds, and the last checkpoint of two runs are bit-equal."""
    assert _results(other) == _results(one)
    names = [json.loads((folder / "summary.json").read_text())["checkpoint"] for folder in (one, other)]
    assert names[0] == names[1]
    checkpoints = [folder / "checkpoints" / names[0] for folder in (one, other)]
    for load in (lambda folder: load_checkpoint(folder)[0], lambda folder: load_momentum(folder, [0, 1])):
        expected, found = (load(checkpoint) for checkpoint in checkpoints)
        assert expected.keys() == found.keys()
        assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def _results(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    with contextlib.suppress(OSError):
        return [int(child) for child in listed.read_text().split()]
    return []


def train(folder: Path, *overrides: str) -> Finished:
    """A training run in this process."""
    return run_script("launch/train.py", [f"run_dir={folder}", *overrides], folder.parent)


def trained(folder: Path, *overrides: str) -> Path:
    finished = train(folder, *overrides)
    assert finished.code == 0, finished.stderr
    return folder


@contextlib.contextmanager
def at_step(step: int, act: Callable[[], object]) -> Iterator[None]:
    """Do something when the run has written its line of metrics for a step."""
    append = RunFolder.append

    def watched(self, record):
        append(self, record)
        if (record["kind"], record["step"]) == ("train", step):
            act()

    with patch.object(RunFolder, "append", watched):
        yield


@contextlib.contextmanager
def at_validation(act: Callable[[], object]) -> Iterator[None]:
    """Do something whenever the run begins to validate."""
    validation = Loader.validation

    def watched(self):
        act()
        return validation(self)

    with patch.object(Loader, "validation", watched):
        yield


def ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def only_error(finished: Finished) -> str:
    (line,) = (line for line in finished.stderr.splitlines() if line.startswith("error: "))
    return line
