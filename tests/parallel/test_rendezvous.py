"""Processes that are started together find each other, and not those that torchrun had started before them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta
from unittest.mock import Mock

import pytest
import torch
import torch.distributed as dist

from alexnet_mp.errors import ConfigurationError, DataLost, NotSaved, PeerLost, Stopped
from alexnet_mp.parallel import mesh
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.placement import Placement
from alexnet_mp.parallel.rendezvous import link_over_gpus, name_of_start, silent_ranks

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
    monkeypatch.setattr(mesh, "link_over_gpus", lambda link, *_: link)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Mock(uuid="GPU-1"))
    monkeypatch.setattr(mesh, "make_mesh", lambda placement, *_: mesh.Mesh(placement, None))
    placement = Placement("distributed", 2, {0: torch.device(device)}, launch=Launch(world_size=2))
    with pytest.raises(type(error)) if error else nullcontext(), mesh.open_mesh(placement, timeout_seconds=5):
        if error:
            raise error
    assert calls == (["gloo", "destroyed"] if all_know or device == "cpu" else ["gloo"])


class Options:
    """torch.distributed.ProcessGroupNCCL.Options, which a CPU build has not."""

    def __init__(self, is_high_priority_stream: bool) -> None:
        self.is_high_priority_stream = is_high_priority_stream
        self._timeout = timedelta(minutes=10)


@pytest.mark.parametrize("link", ["direct", "host"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_groups_of_gpus_wait_longer_than_we_do_and_the_towers_exchange_goes_first(device, link, monkeypatch):
    made = []

    def new_group(ranks, timeout=None, backend=None, pg_options=None):
        made.append((ranks, timeout.total_seconds(), backend, pg_options))

    monkeypatch.setattr(dist, "new_group", new_group)
    monkeypatch.setattr(dist, "ProcessGroupNCCL", Mock(Options=Options), raising=False)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(mesh, "DeviceMesh", Mock())
    placement = Placement("distributed", 2, {1: torch.device(device)}, 1, 2, Launch(3, 4, 3, 4))
    mesh.make_mesh(placement, 40, link)
    gloo = device == "cpu" or link == "host"  # which carries gradients through the host too
    seconds, backend = (40, "gloo") if gloo else (100, "nccl")
    assert [each[:3] for each in made] == [(ranks, seconds, backend) for ranks in ([0, 1], [2, 3], [0, 2], [1, 3])]
    options = [each[3] for each in made]
    if gloo:
        assert options == [None] * 4
    else:
        assert [each.is_high_priority_stream for each in options] == [True, True, False, False]
        assert {each._timeout.total_seconds() for each in options} == {100}


def compared(uuids: list[str]) -> list[str]:
    """What each process says whose GPUs are these."""
    store, count = dist.HashStore(), len(uuids)

    def compare(rank: int) -> str:
        try:
            link_over_gpus("direct", store, Launch(rank, count, 0, count), uuids[rank])
        except ConfigurationError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(compare, range(count)))


def test_only_gpus_that_processes_share_are_refused_and_in_all_of_them():
    assert compared(["GPU-a", "GPU-b"]) == ["", ""]
    said = compared(["GPU-a", "GPU-b", "GPU-a", "GPU-b"])
    assert len(set(said)) == 1
    assert said[0].startswith("ranks 0, 2 share GPU GPU-a; ranks 1, 3 share GPU GPU-b; start no more processes")
    assert "--gpu-bind=single:1" in said[0]


@pytest.mark.parametrize("link", ["direct", "auto"])
def test_processes_that_share_a_gpu_go_through_the_host_once_they_have_joined_or_are_refused(link, monkeypatch, caplog):
    store, joined = dist.HashStore(), []
    store.set("gpu of rank 1", "GPU-a")
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: joined.append(True))
    monkeypatch.setattr(mesh, "rendezvous_store", lambda *_: store)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Mock(uuid="GPU-a"))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(mesh, "make_mesh", lambda placement, _, link: mesh.Mesh(placement, None, link_choice=link))
    placement = Placement("distributed", 2, {0: torch.device("cuda", 0)}, launch=Launch(world_size=2))
    said = pytest.raises(ConfigurationError, match=r"ranks 0, 1 share GPU GPU-a; .*or use link=host or device=cpu")
    with said if link == "direct" else nullcontext(), mesh.open_mesh(placement, 5, link) as joined_mesh:
        assert (joined_mesh.link_choice, link) == ("host", "auto")
    assert joined == [True]
    assert bool(caplog.messages) == (link == "auto")
    assert all("host, which is slower than from GPU to GPU: ranks 0, 1 share GPU GPU-a" in m for m in caplog.messages)


def test_a_store_that_is_gone_knows_nobody():
    class GoneStore:
        def set(self, *_):
            raise RuntimeError("Connection reset by peer")

    assert silent_ranks(GoneStore(), 0, 2, seconds=0.05) == []
