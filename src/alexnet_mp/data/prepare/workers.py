"""Shards made by several processes, or by this one; what comes back is in no order."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait

from alexnet_mp.data.prepare.shards import ShardResult, ShardTask, make_shard
from alexnet_mp.errors import ConfigurationError


def make_shards(tasks: Sequence[ShardTask], workers: int) -> Iterator[tuple[ShardTask, ShardResult]]:
    """Make every shard; one worker is this process itself.

    Raises the ConfigurationError of a shard that cannot be made, when the shards that are being made are done, and one
    where a process dies.
    """
    if workers == 1:
        for task in tasks:
            yield task, make_shard(task)
        return
    with ProcessPoolExecutor(min(workers, len(tasks)), _context(), _prepare_worker) as pool:
        try:
            futures = {pool.submit(make_shard, task): task for task in tasks}
            for future in as_completed(futures):
                yield futures.pop(future), future.result()
        except BrokenProcessPool as error:
            raise ConfigurationError(
                "a worker process died, perhaps for lack of memory; the same command goes on from the finished shards "
                f"(workers={max(1, workers // 2)} would need less)"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _context() -> multiprocessing.context.BaseContext:
    """Processes that inherit no threads. A fork server imports the library once for all of them, where there is one."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([make_shard.__module__])
    return context


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers, and they would write into what its successor writes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
