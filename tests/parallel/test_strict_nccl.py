"""Strict NCCL catches what NCCL would punish: a fault planted in each of the ways that its docstring names."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from alexnet_mp.errors import PeerLost
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.mesh import make_mesh
from alexnet_mp.parallel.placement import choose_placement
from tests.support.processes import run_processes
from tests.support.strict_nccl import Strict, StrictGroup, strict_nccl

PATIENCE, WATCHDOG = 0.8, 0.4  # seconds, for what hangs
Plant = Callable[[StrictGroup, int, Strict], Any]


def numbers(rank: int, count: int = 4) -> Tensor:
    return torch.arange(count, dtype=torch.float32) + 10 * (rank + 1)


def exchange(group: StrictGroup, peer: int, sent: Tensor, received: Tensor) -> list[dist.Work]:
    operations = [(dist.isend, sent), (dist.irecv, received)]
    return dist.batch_isend_irecv([dist.P2POp(op, each, group=group, group_peer=peer) for op, each in operations])


def batched(group: StrictGroup, rank: int, strict: Strict) -> list[float]:
    received = torch.zeros(4)
    (request,) = exchange(group, 1 - rank, numbers(rank), received)
    assert request.wait()
    strict.settle(torch.device("cpu"), 20)
    return received.tolist()


def sends_before_it_receives(group: StrictGroup, rank: int, strict: Strict) -> list[float]:
    received = torch.zeros(4)
    sending = dist.isend(numbers(rank), group=group, group_dst=1 - rank)
    receiving = dist.irecv(received, group=group, group_src=1 - rank)
    assert sending.wait() and receiving.wait()
    return received.tolist()


def crosses_in_another_order(group: StrictGroup, rank: int, strict: Strict) -> None:
    for count in (4, 6) if rank == 0 else (6, 4):
        exchange(group, 1 - rank, numbers(rank, count), torch.zeros(count))[0].wait()


def crosses_in_another_dtype(group: StrictGroup, rank: int, strict: Strict) -> None:
    dtype = torch.float16 if rank == 0 else torch.bfloat16
    exchange(group, 1 - rank, numbers(rank).to(dtype), torch.zeros(4, dtype=dtype))[0].wait()


def sends_with_gaps(group: StrictGroup, rank: int, strict: Strict) -> str:
    with pytest.raises(ValueError) as raised:
        exchange(group, 1 - rank, numbers(rank, 8)[::2], torch.zeros(4))
    return str(raised.value)


def uses_what_has_not_arrived(group: StrictGroup, rank: int, strict: Strict) -> list[float]:
    received = torch.zeros(4)
    (request,) = exchange(group, 1 - rank, numbers(rank), received)
    used = received * 2
    request.wait()
    strict.settle(torch.device("cpu"), 20)
    return used.tolist()


def never_waits(group: StrictGroup, rank: int, strict: Strict) -> None:
    exchange(group, 1 - rank, numbers(rank), torch.zeros(4))
    strict.settle(torch.device("cpu"), 20)


def changes_what_it_sends(group: StrictGroup, rank: int, strict: Strict) -> None:
    sent = numbers(rank)
    if rank == 0:
        request = dist.isend(sent, group=group, group_dst=1)
        sent.add_(1)
        dist.barrier()
    else:
        dist.barrier()
        request = dist.irecv(sent, group=group, group_src=0)
    request.wait()


def writes_where_it_receives(group: StrictGroup, rank: int, strict: Strict) -> None:
    if rank == 0:
        dist.barrier()
        request = dist.isend(numbers(rank), group=group, group_dst=1)
    else:
        received = torch.zeros(4)
        request = dist.irecv(received, group=group, group_src=0)
        received.zero_()
        dist.barrier()
    request.wait()


def loses_its_peer(group: StrictGroup, rank: int, strict: Strict) -> list[float]:
    received = torch.zeros(4)
    if rank == 0:
        assert dist.irecv(received, group=group, group_src=1).wait(), "a wait raises nothing"
        with pytest.raises(PeerLost, match=r"cuda:0 did not finish its work within 0.1 s"):
            strict.settle(torch.device("cuda", 0), 0.1)
    return received.tolist()


def reads_before_a_bounded_wait(group: StrictGroup, rank: int, strict: Strict) -> float:
    received = torch.zeros(4)
    exchange(group, 1 - rank, numbers(rank), received)[0].wait()
    loss = received.sum().item()
    strict.settle(torch.device("cpu"), 20)
    return received.sum().item() - loss


def reduces_in_another_order(group: StrictGroup, rank: int, strict: Strict) -> None:
    def reduce() -> None:
        dist.all_reduce(numbers(rank), group=group)

    def broadcast() -> None:
        dist.broadcast(numbers(rank), group=group, group_src=0)

    for collective in (reduce, broadcast) if rank == 0 else (broadcast, reduce):
        collective()


def tells_parcels_by_tag(group: StrictGroup, rank: int, strict: Strict) -> list[float]:
    tags, found = ((1, 2), (2, 1))[rank], []
    for tag in tags:
        tensor = torch.full((1,), float(tag))
        if rank == 0:
            dist.isend(tensor, group=group, group_dst=1, tag=tag).wait()
        else:
            dist.irecv(tensor, group=group, group_src=0, tag=tag).wait()
        found.append(tensor)
    strict.settle(torch.device("cpu"), 20)
    return torch.cat(found).tolist()


def planted(plant: Plant, hangs: bool) -> tuple[list[str], Any]:
    """The faults that the tool found in this process, and what the plant returned."""
    rank = dist.get_rank()
    times = (PATIENCE, WATCHDOG) if hangs else (60.0, None)
    with strict_nccl(*times, reads_of=(__file__,), raises=False) as strict:
        mesh = make_mesh(choose_placement("distributed", "cpu", 2, Launch.from_environment(rank, 2)), 30)
        group = mesh.axes.get_group("tower")
        assert isinstance(group, StrictGroup)
        returned = plant(group, rank, strict)
    return strict.faults, returned


def run(plant: Plant, hangs: bool = False) -> tuple[list[list[str]], list[Any]]:
    """Of each process, its faults and what it returned."""
    faults, returned = zip(*run_processes(2, planted, plant, hangs), strict=True)
    return list(faults), list(returned)


def test_a_batch_is_carried_whole_with_one_request():
    assert run(batched) == ([[], []], [[20.0, 21.0, 22.0, 23.0], [10.0, 11.0, 12.0, 13.0]])


def test_two_processes_that_send_before_they_receive_wait_for_ever_and_wait_says_nothing():
    faults, received = run(sends_before_it_receives, hangs=True)
    for rank in range(2):
        assert (
            f"watchdog: a send to {1 - rank} of rank {rank} is not done {WATCHDOG} s after it was enqueued"
            in faults[rank]
        )
        assert f"watchdog: a receive from {1 - rank} of rank {rank} is not" in faults[rank][1], "it counts in the queue"
        assert all(map(math.isnan, received[rank]))


@pytest.mark.parametrize("plant", [crosses_in_another_order, crosses_in_another_dtype])
def test_what_crosses_in_another_order_or_dtype_is_a_fault(plant):
    faults, _ = run(plant, hangs=True)
    assert all(any("expects" in each and each.endswith("NCCL hangs, or mixes them up") for each in f) for f in faults)


def test_a_tensor_with_gaps_is_refused():
    assert run(sends_with_gaps) == ([[], []], ["Tensors must be contiguous"] * 2)


def test_what_has_not_been_waited_for_is_not_there():
    faults, used = run(uses_what_has_not_arrived)
    assert faults == [[], []] and all(map(math.isnan, used[0] + used[1]))


def test_a_request_that_nobody_waits_for_is_a_fault():
    faults, _ = run(never_waits)
    assert faults == [[f"nobody waited for a send to {peer} and a receive from {peer}"] for peer in (1, 0)]


def test_a_sent_tensor_that_changes_in_flight_is_a_fault():
    assert run(changes_what_it_sends)[0] == [["a tensor changed while it was in flight: a send to 1"], []]


def test_a_buffer_that_is_written_while_something_is_on_its_way_to_it_is_a_fault():
    assert run(writes_where_it_receives)[0] == [[], ["a tensor changed while it was in flight: a receive from 0"]]


def test_only_a_bounded_wait_and_the_watchdog_notice_a_peer_that_does_not_come():
    faults, received = run(loses_its_peer, hangs=True)
    assert all(map(math.isnan, received[0]))
    assert faults[1] == []
    assert faults[0][0] == f"watchdog: a receive from 1 of rank 0 is not done {WATCHDOG} s after it was enqueued"
    assert "the host reads a number (tolist)" in faults[0][1], "after a bounded wait that has failed"


def test_a_host_that_reads_a_number_before_a_bounded_wait_is_a_fault():
    faults, differences = run(reads_before_a_bounded_wait)
    for found in faults:
        (fault,) = found
        assert fault.startswith("the host reads a number (item) at test_strict_nccl.py:") and "bounded wait" in fault
    assert differences == [0.0, 0.0], "and the read after the wait is none"


def test_collectives_in_another_order_are_a_fault():
    faults, _ = run(reduces_in_another_order, hangs=True)
    assert all("while another rank is at another collective" in found[0] for found in faults)


def test_tags_mean_nothing():
    assert run(tells_parcels_by_tag) == ([[], []], [[1.0, 2.0], [1.0, 2.0]])
