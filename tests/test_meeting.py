"""Processes that are started together find each other, and not those that torchrun had started before them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from alexnet_mp.meeting import name_of_start, silent_ranks

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


def test_a_store_that_is_gone_knows_nobody():
    class GoneStore:
        def set(self, *_):
            raise RuntimeError("Connection reset by peer")

    assert silent_ranks(GoneStore(), 0, 2, seconds=0.05) == []
