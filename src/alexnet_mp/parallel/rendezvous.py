"""Rendezvous at start-up, and detection of ranks that stop responding."""

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import torch.distributed as dist

from alexnet_mp.errors import ConfigurationError
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.placement import LinkChoice

_LOG = logging.getLogger("alexnet_mp.parallel.rendezvous")


def rendezvous_store(launch: Launch, timeout: timedelta) -> dist.Store:  # type: ignore[name-defined]
    """Where the processes of a run find each other: at MASTER_ADDR and MASTER_PORT, as torchrun sets them.

    torchrun keeps its store while it starts processes again, and with it the addresses of those that have ended, to
    which the new ones would try to connect (github.com/pytorch/pytorch/issues/167288). So each start has its own names.
    TORCHELASTIC_RESTART_COUNT is none: a torchrun that starts its processes again because another one does, which is
    what happens on every node but that of the fault, does not count it.
    """
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT", "")
    if not host or not port.isdecimal():
        raise ConfigurationError(
            f"{launch.world_size} processes, and MASTER_ADDR and MASTER_PORT do not say where they meet; start them "
            "with torchrun"
        )
    is_host = launch.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = dist.TCPStore(  # type: ignore[attr-defined]
        host, int(port), is_master=is_host, timeout=timeout, wait_for_workers=False
    )
    return dist.PrefixStore(name_of_start(store, launch.rank, launch.world_size, timeout), store)  # type: ignore[attr-defined]


def name_of_start(store: dist.Store, rank: int, world_size: int, timeout: timedelta) -> str:  # type: ignore[name-defined]
    """A name that the processes that are started together have in common, and no earlier ones.

    Rank 0 makes it up, the others answer to it, and it is good once rank 0 has published their answers: a process that
    does not find its own there has read a name of before. Raises RuntimeError if some do not come.
    """
    mine, deadline = uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()
    if rank == 0:
        store.set("start", mine)
        missing = set(range(1, world_size))
        while missing := {other for other in missing if not store.check([f"{mine} {other}"])}:
            _wait_until(deadline, f"for {len(missing)} of {world_size} processes, rank {min(missing)} among them")
        store.set(f"{mine} answers", " ".join(store.get(f"{mine} {other}").decode() for other in range(1, world_size)))
        return mine
    while True:
        start = store.get("start").decode() if store.check(["start"]) else ""
        if start:
            store.set(f"{start} {rank}", mine)
            if store.check([f"{start} answers"]) and mine in store.get(f"{start} answers").decode().split():
                return start
        _wait_until(deadline, "for rank 0")


def _wait_until(deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise RuntimeError(f"waited {what}")
    time.sleep(0.01)


def link_over_gpus(link: LinkChoice, store: dist.Store, launch: Launch, uuid: str) -> LinkChoice:  # type: ignore[name-defined]
    """`link`, or `host` with a warning if two processes have the GPU of the same `uuid`; all of them get the same.

    Each process calls it with its own. A process that sees one GPU cannot tell from this that it has it to itself.
    Raises ConfigurationError, in every process alike, if they share a GPU and the link is to be direct.
    """
    store.set(f"gpu of rank {launch.rank}", uuid)
    ranks: dict[str, list[int]] = {}
    for rank in range(launch.world_size):
        ranks.setdefault(store.get(f"gpu of rank {rank}").decode(), []).append(rank)
    shared = {gpu: sharing for gpu, sharing in ranks.items() if len(sharing) > 1}
    found = "; ".join(f"ranks {', '.join(map(str, sharing))} share GPU {gpu}" for gpu, sharing in shared.items())
    if shared and link == "direct":
        raise ConfigurationError(
            f"{found}; start no more processes on a node than it has GPUs (--nproc-per-node), and let each see either "
            "all of them or one of its own (Slurm: --gpus-per-task=1 --gpu-bind=single:1), or use link=host or "
            "device=cpu"
        )
    if shared and link == "auto":
        _LOG.warning("%-10s host, which is slower than from GPU to GPU: %s", "link", found)
    return "host" if shared else link


def silent_ranks(
    store: dist.Store,  # type: ignore[name-defined]
    rank: int,
    world_size: int,
    seconds: float,
) -> list[int]:
    """The ranks that do not say within so many seconds that they have missed somebody too.

    A process that hangs says nothing, and one that is gone says nothing. Empty if the store does not answer either.
    """
    silent: list[int] = []

    def call_the_roll() -> None:
        deadline = time.monotonic() + seconds
        store.set(f"rank {rank} is left", "")
        while True:
            missing = [other for other in range(world_size) if not store.check([f"rank {other} is left"])]
            if not missing or time.monotonic() > deadline:
                silent.extend(missing)
                return
            time.sleep(0.02)

    # In a thread, because a store whose host hangs does not come back.
    thread = threading.Thread(target=_quietly, args=(call_the_roll,), daemon=True)
    thread.start()
    thread.join(seconds + 1)
    return list(silent)


def _quietly(function: Callable[[], None]) -> None:
    with suppress(RuntimeError):
        function()
