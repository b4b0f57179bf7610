"""The cost model of several replicas on several nodes: the arithmetic by hand, what it says, and what it refuses."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alexnet_mp import ConfigurationError
from alexnet_mp.commands import plan
from alexnet_mp.common.cli import compose
from alexnet_mp.performance.cost_model.hardware import DeviceLink, Hardware
from alexnet_mp.performance.cost_model.prediction import Prediction, predict
from alexnet_mp.performance.cost_model.replicas import Layout
from tests.support.cost_model import CONV1, PARAMETERS_OF_TOWER_0, PARAMETERS_OF_TOWER_1, device, small
from tests.support.processes import CHECKOUT

NETWORK_BETWEEN = DeviceLink("cable", bandwidth=60.0, latency_seconds=3.0)
NODE = device(between_nodes=NETWORK_BETWEEN)  # two devices; its own link has 100 bytes/s after two seconds


def split(replicas: int, nodes: int, batch: int, of: Hardware = NODE) -> Prediction:
    return predict(small(), of, batch, layout=Layout(replicas, nodes)).predictions["split"]


def test_replicas_share_the_batch() -> None:
    four, one = split(4, 4, batch=8), split(1, 1, batch=2)
    assert four.devices == 8
    assert four.convolution == pytest.approx(2 * 2 * CONV1 * 2 / 500)
    assert (four.matmul, four.optimizer) == (one.matmul, one.optimizer)
    assert four.crossings == one.crossings  # of a replica, within its node
    assert four.images_per_second == pytest.approx(8 / four.step)
    assert one.all_reduce == ()


def test_each_tower_sums_its_own_gradients_over_the_replicas_and_the_towers_of_a_node_share_its_network() -> None:
    (transfer,) = split(4, 4, batch=4).all_reduce  # all gradients in one bucket
    sent = 2 * 3 / 4 * 4 * PARAMETERS_OF_TOWER_0
    assert transfer.bytes_sent == sent
    assert transfer.seconds == pytest.approx(2 * 3 * 3.0 + sent / (60 / 2))
    # Its last gradient, conv1's, is there when the backward pass ends.
    assert transfer.exposed == pytest.approx(transfer.seconds)


def test_replicas_on_one_node_sum_over_its_own_link() -> None:
    node = replace(NODE, devices=4)
    (transfer,) = split(2, 1, batch=4, of=node).all_reduce
    assert transfer.seconds == pytest.approx(2 * 1 * 2.0 + 4 * PARAMETERS_OF_TOWER_0 / 100)


def test_a_ring_is_as_fast_as_its_slowest_link() -> None:
    fast = replace(NODE, between_nodes=replace(NETWORK_BETWEEN, bandwidth=1e9))
    (transfer,) = split(2, 2, batch=4, of=fast).all_reduce
    assert transfer.seconds == pytest.approx(2 * 1 * 3.0 + 4 * PARAMETERS_OF_TOWER_0 / 100)


def test_data_parallel_has_one_ring_over_all_devices_with_all_gradients() -> None:
    (transfer,) = predict(small(), NODE, 8, layout=Layout(2, 2)).predictions["data_parallel"].all_reduce
    sent = 2 * 3 / 4 * 4 * (PARAMETERS_OF_TOWER_0 + PARAMETERS_OF_TOWER_1)
    assert transfer.seconds == pytest.approx(2 * 3 * 3.0 + sent / 60)


def test_on_two_cores_two_replicas_share_them_and_update_twice() -> None:
    cores = device(one_process=1.0, memory_bandwidth=1e6)
    two, one = split(2, 1, batch=4, of=cores), split(1, 1, batch=4, of=cores)
    assert two.convolution == pytest.approx(one.convolution)  # half of the images at half of the rate
    assert two.optimizer == pytest.approx(2 * one.optimizer)
    (transfer,) = two.all_reduce
    assert transfer.seconds == pytest.approx(2 * 2.0 + 4 * PARAMETERS_OF_TOWER_0 / 50)
    assert two.capacity == one.capacity / 2


@pytest.mark.parametrize(
    ("layout", "of", "message"),
    [
        (Layout(3, 2), NODE, "3 replicas cannot be dealt equally to 2 nodes; use a multiple, for example replicas=2"),
        (
            Layout(2, 2),
            device(),
            "says nothing of a link between nodes; add between_nodes to its description, or node_",
        ),
        (Layout(4, 2), NODE, "4 towers on each of 2 nodes, which have 2 devices; use at most replicas=2, or nodes=4"),
    ],
)
def test_a_layout_that_the_nodes_do_not_allow_is_refused(layout: Layout, of: Hardware, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        predict(small(), of, 8, layout=layout)


def test_a_batch_that_replicas_cannot_share_leaves_the_split_out() -> None:
    assert predict(small(), NODE, 9, layout=Layout(2, 2)).left_out["split"].startswith("a batch of 9 images")


def planned(tmp_path: Path, *overrides: str) -> Any:
    plan.run(compose("plan", [*overrides, f"json={tmp_path / 'plan.json'}"]))
    return json.loads((tmp_path / "plan.json").read_text())


A100 = ["hardware=two_a100_nvlink", "precision=bfloat16"]


def test_the_plan_of_eight_nodes_says_how_it_scales_and_what_bounds_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    eight = planned(tmp_path, *A100, "replicas=8", "nodes=8", "batch_size=1024")
    printed = capsys.readouterr().out
    one = planned(tmp_path, *A100, "batch_size=128")
    assert one["scaling"] is None
    scaling, way = eight["scaling"], eight["ways"]["split"]
    assert scaling["one_replica_images_per_second"] == one["ways"]["split"]["images_per_second"]
    assert scaling["efficiency"] == pytest.approx(
        way["images_per_second"] / (8 * one["ways"]["split"]["images_per_second"])
    )
    assert sum(scaling["fractions_of_a_step"].values()) == pytest.approx(1)
    assert scaling["bound"] == max(scaling["fractions_of_a_step"], key=scaling["fractions_of_a_step"].get)
    # The paper's tower 0 has 30,483,112 parameters: a tower sends 2 * 7/8 of 4 bytes each.
    assert sum(t["bytes_sent"] for t in way["all_reduce"]) == pytest.approx(2 * 7 / 8 * 4 * 30_483_112)
    assert "8 replicas on 8 nodes of two A100" in printed.splitlines()[0]
    assert f"Bound by {scaling['bound']}." in printed


def test_a_slower_network_is_one_key(tmp_path: Path) -> None:
    layout = ["replicas=2", "nodes=2", "batch_size=256"]
    speeds = [
        planned(tmp_path, *A100, *layout, *changes)["ways"]["split"]["images_per_second"]
        for changes in ([], ["node_bandwidth=1.25e9"])
    ]
    assert speeds[1] < speeds[0] / 2
    with_key = planned(tmp_path, "hardware=two_gtx_580", *layout, "node_bandwidth=1.25e9")
    assert with_key["ways"]["split"]["devices"] == 4


@pytest.mark.parametrize(
    ("nodes", "images"), [(1, 128), (2, 128), (8, 128), (8, 16), (8, 1024)], ids=lambda number: str(number)
)
def test_the_page_has_the_projections_that_the_plan_makes(nodes: int, images: int, tmp_path: Path) -> None:
    layout = [f"replicas={nodes}", f"nodes={nodes}", f"batch_size={nodes * images}", "precision=bfloat16"]
    (row,) = re.findall(rf"^\| {nodes} \| {images:,} .*$", (CHECKOUT / "docs" / "scaling.md").read_text(), re.MULTILINE)
    for preset in ("two_a100_nvlink", "two_a100_pcie"):
        values = planned(tmp_path, f"hardware={preset}", *layout)
        assert f"| {values['ways']['split']['images_per_second']:,.0f} |" in row
        if nodes > 1:
            assert f"| {100 * values['scaling']['efficiency']:.0f} % |" in row
            assert values["scaling"]["bound"] in row


@pytest.mark.parametrize("override", ["replicas=0", "nodes=0", "node_bandwidth=0"])
def test_numbers_below_one_are_refused(override: str) -> None:
    with pytest.raises(ConfigurationError, match="must be positive"):
        plan.run(compose("plan", [override]))
