"""Processes that are started together find each other, and not those that torchrun had started before them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from alexnet_mp.errors import ConfigurationError, DataLost, NotSaved, PeerLost, Stopped
from alexnet_mp.parallel import mesh
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.placement import Placement
from alexnet_mp.parallel.rendezvous import name_of_start, silent_ranks

SECONDS = timedelta(seconds=20)
AT_ONCE = timedelta(seconds=0.02)


def started_together(store: dist.Store, world_size: int) -> set[str]:
    with ThreadPoolExecutor(world_size) as pool:
        names = pool.map(lambda rank: name_of_start(store, rank, world_size, SECONDS), range(world_size))
        return set(names)


def test_each_start_of_the_same_torchrun_has_one_name_of_its_own():
    store = dist.HashStore()
    starts = [started_together(store, 4) for _ in range(3)]
    assert [len(names) for names in starts] == [1, 1, 1]
    assert len(set.union(*starts)) == 3


def test_a_process_that_is_there_before_the_new_rank_0_does_not_take_the_name_of_the_last_start():
    store = dist.HashStore()
    started_together(store, 2)
    with pytest.raises(RuntimeError, match="waited for rank 0"):
        name_of_start(store, 1, 2, AT_ONCE)


def test_a_process_that_does_not_come_is_waited_for_so_long():
    with pytest.raises(RuntimeError, match="waited for 2 of 3 processes, rank 1 among them"):
        name_of_start(dist.HashStore(), 0, 3, AT_ONCE)
    with pytest.raises(RuntimeError, match="waited for rank 0"):
        name_of_start(dist.HashStore(), 1, 3, AT_ONCE)


def test_those_who_are_left_know_who_is_not():
    store = dist.HashStore()
    with ThreadPoolExecutor(3) as pool:
        found = pool.map(lambda rank: silent_ranks(store, rank, 4, seconds=0.3), (0, 2, 3))
        assert list(found) == [[1]] * 3


def test_nobody_waits_for_a_store_that_does_not_answer():
    class HangingStore:
        def set(self, *_):
            threading.Event().wait(3)
            raise RuntimeError("too late")

    assert silent_ranks(HangingStore(), 0, 2, seconds=0.05) == []


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    ("error", "all_know"),
    [
        (Stopped("after step 3"), True),
        (FloatingPointError("the loss is nan"), True),
        (NotSaved("no space left"), True),
        (PeerLost("rank 1 is gone"), False),
        (DataLost("a shard is gone"), False),
        (ConfigurationError("images of one process"), False),
        (KeyboardInterrupt(), False),
        (None, True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_groups_over_gpus_are_left_together_or_not_at_all(device, error, all_know, monkeypatch):
    calls: list[str] = []
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **_: calls.append(backend))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append("destroyed"))
    monkeypatch.setattr(mesh, "rendezvous_store", lambda *_: None)
    monkeypatch.setattr(mesh, "make_mesh", lambda placement, _: mesh.Mesh(placement, None))
    placement = Placement("distributed", 2, {0: torch.device(device)}, launch=Launch(world_size=2))
    with pytest.raises(type(error)) if error else nullcontext(), mesh.open_mesh(placement, timeout_seconds=5):
        if error:
            raise error
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    assert calls == ([backend, "destroyed"] if all_know or device == "cpu" else [backend])


def test_a_store_that_is_gone_knows_nobody():
    class GoneStore:
        def set(self, *_):
            raise RuntimeError("Connection reset by peer")

    assert silent_ranks(GoneStore(), 0, 2, seconds=0.05) == []
