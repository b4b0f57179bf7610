"""Runs the processes of a sweep, some at a time; passes a stop signal on to each once, and finds why one failed."""

import os
import re
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from alexnet_mp.common.disk import FolderLock
from alexnet_mp.common.host import usable_cores
from alexnet_mp.common.text import printable
from alexnet_mp.sweep.jobs import Job

# A job hears of each as a signal that torchrun passes on; SIGUSR1 would end torchrun and leave its processes.
_STOPPING = {signal.SIGINT: signal.SIGINT} | dict.fromkeys(
    (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1), signal.SIGTERM
)

_LONGEST = 300
_LOG_BYTES = 1 << 20  # of the end of a log are read

_RANK = re.compile(r"^\[rank\d+\]: ?")  # torch puts it before a traceback's lines
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit|Failed)\b")
_TORCHRUN = ("ChildFailedError", "SignalException", "torch.distributed.elastic.")

Process = subprocess.Popen[bytes]
Start = Callable[[Job], Process]
# The job, its exit code or why it could not be started, and the signal that stops the sweep, if one does.
Ended = Callable[[Job, int | OSError, signal.Signals | None], None]
Stopping = Callable[[signal.Signals], None]
_Queue = SimpleQueue[tuple[Job, int | OSError] | None]


def run_jobs(jobs: Sequence[Job], parallel: int, start: Start, ended: Ended, stopping: Stopping) -> None:
    """Run every job, `parallel` at a time, and call `ended` after each; call it from the main thread.

    SIGINT, SIGTERM, SIGHUP or SIGUSR1 is handed on to the processes that run, once to each; then `stopping` is called
    with it, nothing more is started, and this returns when they have ended.
    """
    waiting, running = deque(jobs), 0
    ended_ones: _Queue = SimpleQueue()
    # A process leaves this as it is told to stop. Popping is one step, so the signal that arrives while a process is
    # being added tells it once, here or there: torchrun told twice would leave its workers behind.
    untold: dict[Job, Process] = {}

    def wait(job: Job, process: Process) -> None:
        ended_ones.put((job, process.wait()))

    with _stop_signals(untold, ended_ones) as stopped:
        while running or (waiting and not stopped):
            while waiting and running < parallel and not stopped:
                job = waiting.popleft()
                running += 1
                try:
                    process = untold[job] = start(job)
                except OSError as error:
                    ended_ones.put((job, error))
                    continue
                threading.Thread(target=wait, args=(job, process), daemon=True).start()
                if stopped:
                    _tell(untold, job, stopped[0])
            found = ended_ones.get()
            if found is None:
                stopping(stopped[0])
                continue
            running -= 1
            untold.pop(found[0], None)
            ended(*found, stopped[0] if stopped else None)


def start_process(job: Job, command: Sequence[str], environment: Mapping[str, str], lock: FolderLock) -> Process:
    """Start a job's command, which prints into the job's log, after what an earlier attempt left there.

    The process holds the sweep's `lock` too: while it lives, no other sweep works in the folder, even if this one has
    been killed. It is in a process group of its own, so that Ctrl-C reaches it through the sweep alone.
    """
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            pass_fds=(lock.descriptor,),
            process_group=0,
        )


def job_environment(parallel: int, processes: int) -> dict[str, str]:
    """The environment of a job: with others beside it, its processes get their share of the cores.

    Alone it gets what torchrun chooses; an OMP_NUM_THREADS of the user's stays.
    """
    environment = dict(os.environ)
    if parallel > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // (parallel * processes))))
    return environment


def last_error(log: Path, start: int) -> str:
    """In one line, why the attempt failed whose output begins at byte `start` of `log`.

    That is the last line that begins with `error: `, as every command ends; or else the last exception that is not
    torchrun's own; or else the last line at all.
    """
    try:
        with log.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(start, end - _LOG_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError as error:
        return f"nothing is known of it: cannot read its log ({error})"
    lines = [_RANK.sub("", line).rstrip() for line in text.splitlines()]
    said = [line for line in lines if line.startswith("error: ")]
    raised = [line for line in lines if _EXCEPTION.match(line) and not any(word in line for word in _TORCHRUN)]
    words = [line for line in lines if line.strip("=- ")]
    found = (said or raised or words or ["it printed nothing"])[-1].removeprefix("error: ").strip()
    return printable(found if len(found) <= _LONGEST else f"{found[: _LONGEST - 1]}…")


def _tell(untold: dict[Job, Process], job: Job, number: signal.Signals) -> None:
    process = untold.pop(job, None)
    if process is not None:
        process.send_signal(number)


@contextmanager
def _stop_signals(untold: dict[Job, Process], ended_ones: _Queue) -> Iterator[list[signal.Signals]]:
    """Hand signals on; yields a list that has the first of them once it has come. Leaves the handlers as they were."""
    stopped: list[signal.Signals] = []

    def stop(number: int, _: object) -> None:
        if stopped:
            return
        stopped.append(_STOPPING[signal.Signals(number)])
        for job in list(untold):
            _tell(untold, job, stopped[0])
        ended_ones.put(None)  # wakes the loop; this queue may be put to from a signal's handler

    before = {number: signal.getsignal(number) for number in _STOPPING}
    for number in _STOPPING:
        if before[number] != signal.SIG_IGN:  # nohup's choice, for one
            signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
