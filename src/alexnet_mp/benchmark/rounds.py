"""Rounds: every contender has one turn in each, in fresh processes, so that a slow spell of the machine hits all."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from math import lcm
from pathlib import Path

from alexnet_mp.benchmark.contenders import CONTENDERS
from alexnet_mp.benchmark.measurement import Measurement, Task
from alexnet_mp.benchmark.settings import BenchmarkSettings
from alexnet_mp.benchmark.worker import TASK, log_name, result_name
from alexnet_mp.cores import usable_cores
from alexnet_mp.errors import ConfigurationError

Turn = list[Measurement]  # one for each process, in order of rank

GRACE_SECONDS = 60.0  # beyond the deadline, for torchrun to start and to end its processes (it may wait 30 s)
LAUNCHER_LOG = "launcher.log"
LOG_LINES = 40  # a failure shows, of each process


class ContenderFailed(RuntimeError):
    """A contender's process crashed or was not done in time; the message has the end of what it printed."""


def choose_contenders(settings: BenchmarkSettings) -> tuple[list[str], dict[str, str]]:
    """The contenders that run, and why others do not. Raises ConfigurationError for a named one that cannot."""
    if settings.contenders is not None:
        for name in settings.contenders:
            _check(name, settings)
        return list(settings.contenders), {}
    able, left_out = [], {}
    for name in CONTENDERS:
        try:
            _check(name, settings)
            able.append(name)
        except ConfigurationError as error:
            left_out[name] = str(error)
    if not able:
        raise ConfigurationError("; ".join(sorted(set(left_out.values()))))
    return able, left_out


def total_threads(settings: BenchmarkSettings, names: Sequence[str]) -> int:
    """CPU threads that each contender has in all: the most that every number of processes divides.

    Raises ConfigurationError where `threads` asks for a number that they do not divide.
    """
    counts = [CONTENDERS[name].processes(settings.network) for name in names]
    share = lcm(*counts)
    if settings.threads is None:
        return max(usable_cores() // share, 1) * share
    if settings.threads % share:
        raise ConfigurationError(
            f"threads={settings.threads} cannot be dealt equally to contenders of {', '.join(map(str, counts))} "
            f"processes; use a multiple of {share}"
        )
    return settings.threads


def run_rounds(settings: BenchmarkSettings, names: Sequence[str], threads: int) -> dict[str, list[Turn]]:
    """Measure, and return each contender's turns in order of the rounds; says on standard error how far it is."""
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    for number in range(1, settings.rounds + 1):
        for name in names:
            processes = CONTENDERS[name].processes(settings.network)
            where = f"round {number} of {settings.rounds}, {name}"
            turn = _run_turn(_task(settings, name, threads // processes), processes, where)
            turns[name].append(turn)
            slowest = max(process.step_seconds for process in turn)
            print(f"{where}: {settings.batch_size / slowest:.4g} images/s", file=sys.stderr, flush=True)
    return turns


def _check(name: str, settings: BenchmarkSettings) -> None:
    contender = CONTENDERS[name]
    contender.check(settings.network, settings.device, contender.processes(settings.network))


def _task(settings: BenchmarkSettings, name: str, threads: int) -> Task:
    return Task(
        contender=name,
        network=settings.network,
        batch_size=settings.batch_size,
        steps=settings.steps,
        warmup_steps=settings.warmup_steps,
        device=settings.device,
        threads=threads,
        seed=settings.seed,
        deadline_seconds=settings.deadline_seconds,
    )


def _run_turn(task: Task, processes: int, where: str) -> Turn:
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"] if processes > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": str(task.threads)}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="alexnet-mp-") as temporary:
        folder = Path(temporary)
        task.write(folder / TASK)
        command = [sys.executable, "-m", *launcher, "alexnet_mp.benchmark.worker", str(folder)]
        # Into a file: a pipe would fill up, or be held open by a process that outlives its parent.
        with (folder / LAUNCHER_LOG).open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
            try:
                process.wait(task.deadline_seconds + GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            finally:
                _end(process)
        results = [folder / result_name(rank) for rank in range(processes)]
        if process.returncode == 0 and all(result.exists() for result in results):
            return [Measurement.read(result) for result in results]
        late = time.monotonic() - started >= task.deadline_seconds
        happened = (
            f"not done after deadline_seconds={task.deadline_seconds:g}"
            if late
            else f"ended with exit code {process.returncode}"
        )
        raise ContenderFailed(f"{where}: {happened}. {_last_words(folder, processes)}")


def _last_words(folder: Path, processes: int) -> str:
    """The end of what each process printed, or of what the launcher did where no process printed anything."""
    logs = {f"process {rank}": folder / log_name(rank) for rank in range(processes)}
    printed = {who: log.read_text(errors="replace") for who, log in logs.items() if log.exists()}
    if not any(printed.values()):
        printed = {"the launcher": (folder / LAUNCHER_LOG).read_text(errors="replace")}
    ends = [
        "\n".join([f"The end of what {who} printed:", *text.splitlines()[-LOG_LINES:]])
        for who, text in printed.items()
        if text
    ]
    return "\n".join(ends) or "It printed nothing."


def _end(process: "subprocess.Popen[bytes]") -> None:
    # Ask first: torchrun ends its processes, which are in sessions of their own, only when it is not killed itself.
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
