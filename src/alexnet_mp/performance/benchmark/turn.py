"""One turn: fresh processes that carry out a task, and what they hand back or the end of what they printed."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TypeVar

from alexnet_mp.performance.benchmark.measurement import Task, Turn, read_record, write_record
from alexnet_mp.performance.benchmark.worker import LOG, RESULT, TASK

_Record = TypeVar("_Record")

_GRACE_SECONDS = 60.0  # beyond the deadline, for torchrun to start and to end its processes (it may wait 30 s)
_LAUNCHER_LOG = "launcher.log"
_LOG_LINES = 40  # a failure shows, of each process


class VariantFailed(RuntimeError):
    """A variant's process crashed or was not done in time; below the message's first line is the end of its output."""


def run_turn(task: Task, processes: int, where: str, kind: type[_Record]) -> Turn[_Record]:
    """Carry out `task` in so many new processes, and return the record of this kind that each leaves.

    `where` begins the message of VariantFailed.
    """
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"] if processes > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": str(task.threads)}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="alexnet-mp-") as temporary:
        folder = Path(temporary)
        write_record(task, folder / TASK)
        command = [sys.executable, "-m", *launcher, "alexnet_mp.performance.benchmark.worker", str(folder)]
        # Into a file: a pipe would fill up, or be held open by a process that outlives its parent.
        with (folder / _LAUNCHER_LOG).open("w", encoding="utf-8") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
            try:
                process.wait(task.deadline_seconds + _GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            finally:
                _end(process)
        results = [folder / RESULT.format(rank) for rank in range(processes)]
        if process.returncode == 0 and all(result.exists() for result in results):
            return [read_record(kind, result) for result in results]
        happened = f"ended with exit code {process.returncode}"
        if time.monotonic() - started >= task.deadline_seconds:
            happened = f"not done after deadline_seconds={task.deadline_seconds:g}"
        raise VariantFailed(f"{where}: {happened}.\n{_last_words(folder, processes)}")


def _last_words(folder: Path, processes: int) -> str:
    """The end of what each process printed, or of what the launcher did where no process printed anything."""
    logs = {f"process {rank}": folder / LOG.format(rank) for rank in range(processes)}
    printed = {who: log.read_text("utf-8", "replace") for who, log in logs.items() if log.exists()}
    if not any(printed.values()):
        printed = {"the launcher": (folder / _LAUNCHER_LOG).read_text("utf-8", "replace")}
    ends = [
        "\n".join([f"The end of what {who} printed:", *text.splitlines()[-_LOG_LINES:]])
        for who, text in printed.items()
        if text
    ]
    return "\n".join(ends) or "It printed nothing."


def _end(process: "subprocess.Popen[bytes]") -> None:
    # Ask first: torchrun ends its processes, which are in sessions of their own, only when it is not killed itself.
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
