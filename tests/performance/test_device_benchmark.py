"""`benchmarks/device.py`: its link is measured by batched operations, and its processes have a GPU set."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import device
import pytest
import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from tests.support.processes import run_processes


def link_with_batched_operations_alone() -> dict[str, float]:
    """Measure the link while every send and receive outside of a batch is refused."""
    batched = distributed_c10d.batch_isend_irecv
    inside: list[bool] = []

    def batch(operations: list[dist.P2POp]) -> list[dist.Work]:
        inside.append(True)
        try:
            return batched(operations)
        finally:
            inside.pop()

    def only_inside(operation: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*arguments: Any, **options: Any) -> Any:
            assert inside, f"{operation.__name__} outside of a batch"
            return operation(*arguments, **options)

        return checked

    with patch.object(dist, "batch_isend_irecv", batch):
        for name in ("isend", "irecv"):
            checked = only_inside(getattr(dist, name))
            for module in (dist, distributed_c10d):
                patcher = patch.object(module, name, checked)
                patcher.start()
        with patch.multiple(device, _PAYLOAD=4_000, _BUCKET=4_000):
            found: dict[str, float] = device._link_of(torch.device("cpu"), 1)
    patch.stopall()
    return found


def test_the_link_sends_and_receives_in_batches() -> None:
    for found in run_processes(2, link_with_batched_operations_alone):
        assert found["bandwidth"] > 0 and found["all_reduce_bandwidth"] > 0
        assert 0 <= found["compute_lost"] <= 1


def test_a_process_sets_its_gpu_before_anything_else_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reached(Exception):
        pass

    chosen: list[torch.device] = []

    def joined(*arguments: Any, **options: Any) -> None:
        raise Reached

    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(dist, "init_process_group", joined)
    with pytest.raises(Reached):
        device._measure(1, 2, "cuda", 8, 1, "file:///nowhere")
    assert chosen == [torch.device("cuda", 1)]
