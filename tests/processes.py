"""Real processes for tests: workers that call a function, and commands under torchrun, both with a hard deadline."""

import os
import queue
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

CHECKOUT = Path(__file__).parent.parent
GROUP_TIMEOUT = timedelta(seconds=30)


def run_processes(count: int, function: Callable[..., Any], *arguments: Any, deadline: float = 90) -> list[Any]:
    """Call `function(*arguments)` in `count` new processes that have joined one gloo group; return results by rank.

    `function` must be importable, and its result must pickle. Each process has one thread. One that raises, dies, or is
    not done after `deadline` seconds ends all of them and fails the test.
    """
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    workers = [
        context.Process(target=_work, args=(rank, count, store.port, results, function, arguments))
        for rank in range(count)
    ]
    for worker in workers:
        worker.start()
    try:
        return _collect(workers, results, time.monotonic() + deadline)
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


def _collect(workers: Sequence[Any], results: Any, end: float) -> list[Any]:
    done: dict[int, Any] = {}
    while len(done) < len(workers):
        assert time.monotonic() < end, f"only ranks {sorted(done)} of {len(workers)} were done in time"
        try:
            rank, result, problem = results.get(timeout=0.5)
        except queue.Empty:
            dead = [worker.pid for worker in workers if worker.exitcode not in (None, 0)]
            assert not dead, f"processes {dead} died without a word"
            continue
        assert not problem, f"rank {rank}:\n{problem}"
        done[rank] = result
    return [done[rank] for rank in range(len(workers))]


def _work(rank: int, count: int, port: int, results: Any, function: Callable[..., Any], arguments: Any) -> None:
    torch.set_num_threads(1)
    try:
        store = dist.TCPStore("127.0.0.1", port, is_master=False)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=GROUP_TIMEOUT)
        result = function(*arguments)
        dist.barrier()
        dist.destroy_process_group()
        results.put((rank, result, ""))
    except BaseException:
        results.put((rank, None, traceback.format_exc()))


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float


def run_command(
    arguments: Sequence[str], cwd: Path, deadline: float = 90, threads: int = 1, **environment: str
) -> Finished:
    """Run a command in `cwd`; after `deadline` seconds kill it with all its children and fail the test."""
    variables = {**os.environ, "OMP_NUM_THREADS": str(threads), **environment}
    started = time.monotonic()
    process = subprocess.Popen(
        list(arguments),
        cwd=cwd,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        stdout, stderr = _end(process)
        raise AssertionError(f"not done after {deadline} s: {arguments}\n{stdout}\n{stderr}") from None
    return Finished(process.returncode, stdout, stderr, time.monotonic() - started)


def _end(process: "subprocess.Popen[str]") -> tuple[str, str]:
    # Ask first: torchrun's workers are in sessions of their own, and only torchrun itself ends them.
    process.terminate()
    try:
        return process.communicate(timeout=35)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()


def torchrun(
    processes: int, arguments: Sequence[str], cwd: Path, deadline: float = 90, threads: int = 1, **environment: str
) -> Finished:
    """`torchrun --nproc-per-node=<processes> <arguments>` on a free port, as `run_command`."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return run_command([*launcher, *arguments], cwd, deadline, threads, **environment)
