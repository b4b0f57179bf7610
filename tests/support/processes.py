"""Processes for tests, with a deadline: workers that call functions, commands, torchrun; and scripts in this one."""

import contextlib
import io
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

CHECKOUT = Path(__file__).parent.parent.parent
GROUP_TIMEOUT = timedelta(seconds=30)


@dataclass(frozen=True)
class Worker:
    """A process that carries out calls, one after another."""

    process: Any
    calls: Connection


# What a training run imports, some of it late: workers are forks of a server that has imported it once.
PRELOADED = ["alexnet_mp.commands.train", "alexnet_mp.training.curves", "sklearn.datasets", "torch._dynamo"]
WORKERS: list[Worker] = []  # by rank, as many as a test has needed yet; they end with this process


def run_processes(count: int, function: Callable[..., Any], *arguments: Any, deadline: float = 90) -> list[Any]:
    """Call `function(*arguments)` in `count` processes that have joined one gloo group; return results by rank.

    `function` must be importable, its result must pickle, and what it changes in its process it must change back: the
    processes serve the next test too, in a new group. Each has one thread. One that raises, dies, or is not done after
    `deadline` seconds ends all of them and fails the test.
    """
    end = time.monotonic() + deadline
    while len(WORKERS) < count:
        WORKERS.append(_start())
    workers = WORKERS[:count]
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    try:
        for rank, worker in enumerate(workers):
            worker.calls.send((rank, count, store.port, function, arguments))
        return _collect(workers, end)
    except BaseException:
        for worker in WORKERS:
            worker.process.kill()
            worker.process.join()
        WORKERS.clear()
        raise


def _start() -> Worker:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    return Worker(process, ours)


def _collect(workers: Sequence[Worker], end: float) -> list[Any]:
    done: dict[int, Any] = {}
    while len(done) < len(workers):
        waiting = {worker.calls: rank for rank, worker in enumerate(workers) if rank not in done}
        answers = wait(list(waiting), max(end - time.monotonic(), 0))
        assert answers, f"only ranks {sorted(done)} of {len(workers)} were done in time"
        for answer in answers:
            rank = waiting[answer]
            try:
                result, problem = answer.recv()
            except EOFError:
                raise AssertionError(f"rank {rank} died without a word") from None
            assert not problem, f"rank {rank}:\n{problem}"
            done[rank] = result
    return [done[rank] for rank in range(len(workers))]


def _serve(calls: Connection) -> None:
    torch.set_num_threads(1)
    while True:
        try:
            rank, count, port, function, arguments = calls.recv()
            store = dist.TCPStore("127.0.0.1", port, is_master=False)
            dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=GROUP_TIMEOUT)
            result = function(*arguments)
            dist.barrier()
            dist.destroy_process_group()
            assert torch.get_num_threads() == 1, "the next test would not have one thread"
            calls.send((result, ""))
        except EOFError:
            return  # the tests are over
        except BaseException:
            calls.send((None, traceback.format_exc()))


@contextmanager
def as_under_torchrun() -> Iterator[None]:
    """In a function that `run_processes` calls: a command finds itself started by torchrun, on one node.

    The group that it would join and leave is the one that the process is in already.
    """
    rank, world = str(dist.get_rank()), str(dist.get_world_size())
    variables = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
    with (
        patch.dict(os.environ, variables),
        patch("alexnet_mp.parallel.mesh.rendezvous_store"),
        patch.object(dist, "init_process_group"),
        patch.object(dist, "destroy_process_group"),
    ):
        yield


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str


def run_script(script: str, arguments: Sequence[str], cwd: Path) -> Finished:
    """What `python <script> <arguments>` in `cwd` does, in this process: for what does not ask for a new one."""
    printed, said = io.StringIO(), io.StringIO()
    code = 0
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(said),
        patch.object(sys, "argv", [script, *arguments]),
        patch.dict(os.environ),
    ):
        try:
            runpy.run_path(str(CHECKOUT / script), run_name="__main__")
        except SystemExit as ended:
            if isinstance(ended.code, str):
                print(ended.code, file=sys.stderr)  # as Python does at its end
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        finally:
            torch.set_num_threads(1)
    return Finished(code, printed.getvalue(), said.getvalue())


def run_script_in(processes: int, script: str, arguments: Sequence[str], cwd: Path, deadline: float = 90) -> Finished:
    """What `torchrun --nproc-per-node=<processes> <script> <arguments>` does, in worker processes; rank 0's output."""
    return run_processes(processes, _run_as_one_of_several, script, list(arguments), cwd, deadline=deadline)[0]


def _run_as_one_of_several(script: str, arguments: Sequence[str], cwd: Path) -> Finished:
    with as_under_torchrun():
        finished = run_script(script, arguments, cwd)
    assert finished.code == 0, finished.stderr
    return finished


def run_command(
    arguments: Sequence[str], cwd: Path, deadline: float = 90, threads: int = 1, **environment: str
) -> Finished:
    """Run a command in `cwd`; after `deadline` seconds kill it with all its children and fail the test."""
    variables = {**os.environ, "OMP_NUM_THREADS": str(threads), **environment}
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
    return Finished(process.returncode, stdout, stderr)


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


def run_together(
    commands: Sequence[Sequence[str]], folders: Sequence[Path], deadline: float = 90, **environment: str
) -> list[Finished]:
    """Run several commands at once, one in each folder, each as `run_command` with one thread does."""
    with ThreadPoolExecutor(len(commands)) as pool:
        running = [
            pool.submit(run_command, command, folder, deadline, **environment)
            for command, folder in zip(commands, folders, strict=True)
        ]
        return [each.result() for each in running]


def agent(processes: int, endpoint: str, address: str, is_host: bool, arguments: Sequence[str]) -> list[str]:
    """The command of one of two torchruns, each with so many processes, that meet at `endpoint` (HOST:PORT).

    The other reaches this one at `address`, and the one that `is_host` listens at the endpoint. torchrun would find
    both out by the host's name, which on one machine is the same for all.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--nproc-per-node={processes}"]
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", f"--rdzv-conf=is_host={int(is_host)}"]
    return [*launcher, *meeting, f"--local-addr={address}", *arguments]


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
