"""The cost model's host: operations of a step, counted on a real one too, and agreements."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from alexnet_mp import load_network
from alexnet_mp.model.layers import lrn
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.rows import Dropout
from alexnet_mp.parallel.links import LocalLink
from alexnet_mp.parallel.placement import Placement
from alexnet_mp.performance.cost_model.compute import row_times
from alexnet_mp.performance.cost_model.prediction import predict
from alexnet_mp.performance.cost_model.replicas import Layout
from alexnet_mp.performance.cost_model.software import (
    AGREEMENT_HOP_SECONDS,
    OPERATIONS_BESIDE,
    OPERATIONS_OF_A_TRANSFER,
)
from alexnet_mp.training.loss import LossOnEveryTower
from tests.support.cost_model import device, small, split

OPERATIONS_OF_ROWS = (
    3 * 3 + 2 + 1 + 3
)  # three products, the second of them reading both towers; a ReLU; a sum of halves


def operations_of_a_step() -> int:
    """Rows, those beside them, one update, and three crossings."""
    return OPERATIONS_OF_ROWS + OPERATIONS_BESIDE + 1 + 3 * OPERATIONS_OF_A_TRANSFER


def test_a_host_that_works_ahead_counts_if_it_takes_longer_than_the_device() -> None:
    alone = split(asynchronous=True)
    device_part = alone.compute + alone.exposed
    agreement = 2 * (2 - 1) * AGREEMENT_HOP_SECONDS
    assert alone.host == agreement
    assert alone.step == device_part
    slow = split(asynchronous=True, launch_seconds=10.0)
    assert slow.host == pytest.approx(10 * operations_of_a_step() + agreement)
    assert slow.compute + slow.exposed == device_part
    assert slow.step == pytest.approx(slow.host)
    assert slow.host_exposed == pytest.approx(slow.host - device_part)


def test_an_agreement_is_two_rounds_of_a_ring_over_all_processes() -> None:
    hosts = [predict(small(), device(devices=8), 8, layout=Layout(n)).predictions["split"].host for n in (1, 2, 4)]
    assert hosts == pytest.approx([2 * (2 * n - 1) * AGREEMENT_HOP_SECONDS for n in (1, 2, 4)])
    assert predict(small(), device(), 8).predictions["single"].host == 0


class Operations(TorchDispatchMode):
    """Counts what a GPU would be sent; views and allocations launch nothing."""

    IDLE = ("empty", "new_empty", "view", "_unsafe_view", "t", "transpose", "permute", "slice", "select", "expand",
            "detach", "alias", "as_strided", "unsqueeze", "squeeze", "split", "_record_function")  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        name = function._schema.name.split("::")[1]
        self.count += not name.rstrip("_").startswith(self.IDLE) or name == "threshold_backward"
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("name", ["paper", "original_2012"])
def test_the_operations_of_the_rows_are_about_those_of_a_real_step(name: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(lrn, "BLOCK_BYTES", 1 << 40)  # one block, as on a GPU
    rows = {key: row for key, row in load_network(name).rows.items() if not isinstance(row, Dropout)}
    network = replace(load_network(name), rows=rows)
    devices = dict.fromkeys(range(2), torch.device("cpu"))
    losses = LossOnEveryTower(
        TowerModel(network, Placement("simulated", 2, devices), LocalLink([*devices.values()]), 0)
    )
    images, labels = [torch.randn(1, *network.image)] * 2, [torch.zeros(1, dtype=torch.long)] * 2
    torch.autograd.backward(losses(images, labels, 0))
    with Operations() as counted:
        torch.autograd.backward(losses(images, labels, 0))
    predicted = sum(row.operations for row in row_times(network_cost(network), device(), 1, 2, "float32"))
    assert predicted == pytest.approx(counted.count, rel=0.25)
