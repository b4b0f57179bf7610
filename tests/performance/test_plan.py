"""The cost model's arithmetic, by hand on networks of a few numbers; its choice; and what it refuses."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from alexnet_mp import ConfigurationError, Network, load_network
from alexnet_mp.common.presets import preset_names
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.model.layers import lrn
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.rows import Dropout
from alexnet_mp.network.table import parse_network
from alexnet_mp.parallel.links import LocalLink
from alexnet_mp.parallel.placement import Placement
from alexnet_mp.performance.cost_model.compute import RowTime, row_times
from alexnet_mp.performance.cost_model.hardware import DeviceLink, Hardware, load_hardware
from alexnet_mp.performance.cost_model.memory import kept_bytes
from alexnet_mp.performance.cost_model.overlap import all_reduce
from alexnet_mp.performance.cost_model.prediction import Prediction, predict
from alexnet_mp.performance.cost_model.replicas import Layout
from alexnet_mp.performance.cost_model.report import choose
from alexnet_mp.performance.cost_model.software import (
    AGREEMENT_HOP_SECONDS,
    OPERATIONS_BESIDE,
    OPERATIONS_OF_A_TRANSFER,
    Achieved,
)
from alexnet_mp.training.loss import LossOnEveryTower

INIT = {"std": 0.01, "bias": 0}


def small(towers: int = 2) -> Network:
    """Per tower: conv 4 kernels 3x3 on 3x8x8, ReLU, fc 10 reading both, classifier of 5."""
    return parse_network(
        {
            "name": "tiny",
            "towers": towers,
            "image": [3, 8, 8],
            "classes": 5,
            "layers": {
                "conv1": {"kind": "conv", "kernels": 4, "size": 3, "pad": [1, 1], "reads": "image", **INIT},
                "relu1": {"kind": "relu"},
                "fc2": {"kind": "fc", "units": 10, "reads": "both", **INIT},
                "fc3": {"kind": "classifier", **INIT},
            },
        }
    )


# Multiply-adds of one tower and one image.
CONV1, FC2, FC3 = 4 * 3 * 9 * 64, 10 * 2 * 256, 5 * 10
PARAMETERS_OF_TOWER_0 = (4 * 27 + 4) + (10 * 512 + 10) + (5 * 10 + 5)
PARAMETERS_OF_TOWER_1 = PARAMETERS_OF_TOWER_0 - 5


def device(**changes: Any) -> Hardware:
    """Arithmetic at 500 and 250 operations a second, memory so fast that it costs nothing, a link of 100 bytes/s."""
    plain = Hardware(
        name="tiny",
        devices=2,
        peak_flops={"float32": 1000.0},
        achieved=Achieved(convolution=0.5, matmul=0.25, memory=1.0),
        memory_bandwidth=1e30,
        memory_bytes=1e9,
        link=DeviceLink("wire", bandwidth=200.0, achieved=0.5, latency_seconds=2.0),
        asynchronous=False,
    )
    return replace(plain, **changes)


def split(batch: int = 1, **changes: Any) -> Prediction:
    return predict(small(), device(**changes), batch).predictions["split"]


def test_a_products_time_is_its_operations_over_the_achieved_rate() -> None:
    prediction = split(batch=3)
    # conv1 reads the image: forward and weights only. The others also send a gradient down.
    assert prediction.convolution == pytest.approx(3 * 2 * CONV1 * 2 / 500)
    assert prediction.matmul == pytest.approx(3 * 2 * (FC2 + FC3) * 3 / 250)


def test_one_device_does_the_work_of_all_towers_and_data_parallel_the_same_on_half_of_the_images() -> None:
    plan = predict(small(), device(), batch=4)
    whole, halves, data = (plan.predictions[way] for way in ("single", "split", "data_parallel"))
    assert whole.convolution == pytest.approx(2 * halves.convolution)
    assert data.convolution == pytest.approx(halves.convolution)
    assert whole.devices == 1
    assert data.devices == 2


def test_a_product_of_few_images_waits_for_its_weights() -> None:
    slow_memory = device(peak_flops={"float32": 1e30}, memory_bandwidth=8.0)
    rows = {row.name: row for row in row_times(network_cost(small()), slow_memory, 1, 1, "float32")}
    values = 10 * 512 + 512 + 10  # weights, both towers' inputs, outputs
    assert rows["fc2"].forward == pytest.approx(4 * values / 8)
    assert rows["fc2"].backward == pytest.approx(2 * 4 * values / 8)


def test_elementwise_rows_and_the_update_are_memory_traffic() -> None:
    prediction = split(batch=2, peak_flops={"float32": 1e30}, memory_bandwidth=10.0, passes={"relu": 7, "optimizer": 6})
    relu, halves = 7 * 4 * 2 * 256 / 10, 3 * 4 * 2 * 10 / 10  # fc2 adds its two halves: three passes over ten units
    assert prediction.elementwise == pytest.approx(relu + halves)
    assert prediction.optimizer == pytest.approx(6 * 4 * PARAMETERS_OF_TOWER_0 / 10)


def test_a_kind_that_is_not_listed_passes_over_its_maps_as_a_normalization_does() -> None:
    costs = network_cost(small())
    unlisted = tuple(replace(row, kind="of_ones_own") if row.kind == "relu" else row for row in costs.rows)
    slow = device(peak_flops={"float32": 1e30}, memory_bandwidth=10.0)
    (row,) = [row for row in row_times(replace(costs, rows=unlisted), slow, 2, 1, "float32") if row.name == "relu1"]
    assert (row.forward, row.backward) == pytest.approx((3 * 4 * 2 * 256 / 10, 5 * 4 * 2 * 256 / 10))


def test_half_precision_halves_the_traffic_of_activations_and_not_of_the_update() -> None:
    rates = {"float32": 1e30, "bfloat16": 1e30}
    slow = device(peak_flops=rates, memory_bandwidth=10.0)
    full, half = (predict(small(), slow, 2, precision).predictions["split"] for precision in rates)
    assert half.elementwise == pytest.approx(full.elementwise / 2)
    assert half.optimizer == full.optimizer


def test_every_kernel_costs_a_launch() -> None:
    # Three products of three kernels, a ReLU of two, one sum of halves, one update.
    difference = split(launch_seconds=5.0).compute - split().compute
    assert difference == pytest.approx((3 * 3 + 2 + 1 + 1) * 5.0)


def test_a_crossing_is_exposed_by_what_its_own_half_does_not_hide() -> None:
    forward_2, forward_3, backward_2 = split().crossings
    assert [(t.name, t.direction) for t in (forward_2, forward_3, backward_2)] == [
        ("fc2", "forward"),
        ("fc3", "forward"),
        ("fc2", "backward"),
    ]
    # 256 floats each way, 100 bytes a second after two seconds. The own half is half of the product: 20.48 s forward.
    assert forward_2.bytes_sent == 4 * 256
    assert forward_2.seconds == pytest.approx(2 + 10.24)
    assert forward_2.exposed == 0
    slow = DeviceLink("wire", bandwidth=25.0, latency_seconds=2.0)
    waiting = split(link=slow).crossings
    own_forward = 2 * (FC2 / 2) / 250
    assert waiting[0].exposed == pytest.approx(2 + 40.96 - own_forward)
    assert waiting[2].exposed == pytest.approx(max(0.0, 2 + 40.96 - 2 * own_forward))
    # The partial logits have nothing to hide behind.
    assert forward_3.exposed == forward_3.seconds == pytest.approx(2 + 4 * 5 / 100)


def test_a_core_that_carries_the_transfer_itself_loses_what_would_be_hidden() -> None:
    hidden, carried = (split(link=replace(device().link, compute_lost=lost)).crossings[0] for lost in (0.0, 0.75))
    assert hidden.exposed == 0
    assert carried.exposed == pytest.approx(0.75 * carried.seconds)


def test_a_half_precision_crossing_sends_half_of_the_bytes() -> None:
    full, half = (predict(small(), device(), 8, crossing_dtype=dtype) for dtype in ("float32", "float16"))
    for whole, halved in zip(full.predictions["split"].crossings, half.predictions["split"].crossings, strict=True):
        assert halved.bytes_sent == whole.bytes_sent / 2


def test_the_papers_crossings_are_the_tables_bytes() -> None:
    network = load_network("paper")
    prediction = predict(network, load_hardware("two_gtx_580"), 128).predictions["split"]
    assert sum(transfer.bytes_sent for transfer in prediction.crossings) == (29_288 + 28_288) * 128 * 4


def rows_of(*backward_and_bytes: tuple[float, int]) -> list[RowTime]:
    return [
        RowTime(f"row{i}", "matmul", 0.0, backward, 1.0, count)
        for i, (backward, count) in enumerate(backward_and_bytes)
    ]


def test_gradients_are_summed_in_buckets_from_the_last_row_on() -> None:
    link = DeviceLink("wire", bandwidth=10.0, latency_seconds=0.0)
    # Backward: row 2 ends at 1 s, row 1 at 3 s, row 0 at 6 s. Two members send as many bytes as a bucket has.
    rows = rows_of((3.0, 10), (2.0, 15), (1.0, 20))
    assert [(t.name, t.bytes_sent) for t in all_reduce(rows, link, 2, bucket_bytes=20)] == [("row2", 20), ("row0", 25)]
    first, second = all_reduce(rows, link, 2, bucket_bytes=20)
    assert (first.seconds, first.exposed) == (2.0, 0.0)  # from 1 s to 3 s
    assert (second.seconds, second.exposed) == (2.5, 2.5)  # it starts with the end of the backward pass


def test_a_bucket_waits_for_the_one_before_it() -> None:
    link = DeviceLink("wire", bandwidth=10.0, latency_seconds=0.0)
    # Backward: 1 s, 1 s more, and 2 s more without a gradient; the second bucket is ready at 2 s.
    first, second = all_reduce(rows_of((2.0, 0), (1.0, 10), (1.0, 50)), link, 2, bucket_bytes=10)
    assert (first.seconds, first.exposed) == (5.0, 2.0)  # from 1 s to 6 s; backward ends at 4 s
    assert (second.seconds, second.exposed) == (1.0, 1.0)  # from 6 s to 7 s


def test_four_members_send_one_and_a_half_times_the_gradients() -> None:
    (only,) = all_reduce(rows_of((1.0, 40)), DeviceLink("wire", bandwidth=10.0, latency_seconds=1.0), 4)
    assert only.bytes_sent == 60
    assert only.seconds == pytest.approx(6 * 1.0 + 60 / 10)


def test_parameters_gradients_and_momentum_are_four_bytes_each() -> None:
    plan = predict(small(), device(), 2)
    for way, parameters in (
        ("split", PARAMETERS_OF_TOWER_0),
        ("single", PARAMETERS_OF_TOWER_0 + PARAMETERS_OF_TOWER_1),
        ("data_parallel", PARAMETERS_OF_TOWER_0 + PARAMETERS_OF_TOWER_1),
    ):
        memory = plan.predictions[way].memory  # type: ignore[index]
        assert (memory.parameters, memory.gradients, memory.momentum) == (4 * parameters,) * 3


def test_activations_are_counted_once_each() -> None:
    # The image and relu1's output, which fc2 keeps too, and fc2's output, which fc3 keeps. conv1's output is not kept.
    kept = 4 * (3 * 64 + 256 + 10)
    assert kept_bytes(network_cost(small()), 4) == kept
    plan = predict(small(), device(), 2)
    assert plan.predictions["split"].memory.activations == 2 * (kept + 4 * 256)  # and the peer's half
    assert plan.predictions["single"].memory.activations == 2 * 2 * kept
    assert plan.predictions["data_parallel"].memory.activations == 2 * kept


def test_what_pooling_dropout_and_normalization_keep() -> None:
    costs = network_cost(load_network("paper"))
    maps = {
        "image": 3 * 224 * 224,
        "relu1, lrn1's sum and result": 3 * 48 * 55 * 55,
        "relu2, lrn2's sum and result": 3 * 128 * 27 * 27,
        "pool1, pool2": 48 * 27 * 27 + 128 * 13 * 13,
        "relu3, relu4, relu5, pool5": (192 + 192 + 128) * 169 + 128 * 36,
        "relu6, relu7 and after dropout": 4 * 2048,
    }
    indices = 8 * (48 * 27 * 27 + 128 * 169 + 128 * 36)
    assert kept_bytes(costs, 4) == 4 * sum(maps.values()) + indices + 2 * 2048


@pytest.mark.parametrize("way", ["split", "single", "data_parallel"])
def test_the_largest_batch_fits_and_the_next_does_not(way: Any) -> None:
    network, pair = load_network("paper"), load_hardware("two_gtx_580")
    most = predict(network, pair, 128).predictions[way].largest_batch
    assert most > 100
    assert predict(network, pair, most).predictions[way].fits
    more = predict(network, pair, most + 2).predictions[way]
    assert not more.fits


def test_no_batch_fits_where_the_weights_do_not() -> None:
    assert split(memory_bytes=1000.0).largest_batch == 0


def test_a_day_is_images_over_images_per_second() -> None:
    prediction = split(batch=4)
    assert prediction.images_per_second == pytest.approx(4 / prediction.step)
    assert prediction.days(epochs=2, images=1000) == pytest.approx(2 * 1000 / prediction.images_per_second / 86_400)
    parts = prediction.convolution + prediction.matmul + prediction.elementwise + prediction.optimizer
    assert prediction.step == pytest.approx(parts + sum(transfer.exposed for transfer in prediction.crossings))


def test_one_process_has_all_cores_of_a_processor_at_the_measured_fraction() -> None:
    network, cores = small(), device(one_process=0.8)
    alone, together = (predict(network, d, 2).predictions["single"] for d in (device(), cores))
    assert together.convolution == pytest.approx(alone.convolution / (2 * 0.8))
    assert together.capacity == 2 * alone.capacity


# The host.

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


# The choice.


def chosen(network: Network, where: Hardware, batch: int) -> str | None:
    return choose(predict(network, where, batch))[0]


def test_only_the_split_fits_where_one_device_cannot_hold_the_network() -> None:
    pair = load_hardware("two_gtx_580")
    tight = replace(pair, memory_bytes=1.2e9)
    way, reason = choose(predict(load_network("paper"), tight, 64))
    assert way == "split"
    assert "one device needs 1." in reason
    assert "of 1.20 GB" in reason


def test_a_link_that_takes_longer_than_the_work_leaves_one_device() -> None:
    pair = load_hardware("two_gtx_580")
    assert chosen(load_network("paper"), replace(pair, link=replace(pair.link, bandwidth=1e6)), 128) == "single"


def test_small_batches_want_the_split_and_large_ones_data_parallelism() -> None:
    # On a slow link the split sends bytes in proportion to the batch, data-parallel the same whatever the batch.
    pair = load_hardware("two_gtx_580")
    slow = replace(pair, link=replace(pair.link, bandwidth=1.0e9, compute_lost=1.0))
    assert chosen(load_network("paper"), slow, 32) == "split"
    assert chosen(load_network("paper"), slow, 2048 * 4) is None  # it does not fit
    roomy = replace(slow, memory_bytes=1e12)
    assert chosen(load_network("paper"), roomy, 2048 * 4) == "data_parallel"


def test_nothing_fits_is_said_with_the_numbers() -> None:
    way, reason = choose(predict(small(), device(memory_bytes=1000.0), 2))
    assert way is None
    assert "use a smaller batch_size" in reason


def test_a_network_of_one_tower_is_not_split_and_one_device_is_not_parallel() -> None:
    plan = predict(load_network("one_column"), load_hardware("titan_x"), 128)
    assert list(plan.predictions) == ["single"]
    assert plan.left_out["split"] == "network one_column has one tower"
    assert "at least 2" in plan.left_out["data_parallel"]


def test_more_towers_than_devices_leave_one_device_alone() -> None:
    plan = predict(load_network("paper", towers=4), load_hardware("two_k20"), 128)
    assert list(plan.predictions) == ["single"]
    assert plan.left_out["split"] == "it takes 4 devices, one a tower, and there are 2"


def test_an_odd_batch_is_not_dealt_to_two_devices() -> None:
    assert "63 images is not dealt evenly" in predict(small(), device(), 63).left_out["data_parallel"]


# What grows and what shrinks.


@pytest.mark.parametrize("preset", preset_names("hardware_descriptions"))
def test_every_preset_predicts_and_more_of_anything_is_never_slower(preset: str) -> None:
    network, described = load_network("paper"), load_hardware(preset)
    plain = predict(network, described, 128)
    better = [
        replace(described, peak_flops={name: 2 * rate for name, rate in described.peak_flops.items()}),
        replace(described, memory_bandwidth=2 * described.memory_bandwidth),
        replace(described, launch_seconds=0.0),
        replace(described, link=replace(described.link, latency_seconds=0.0, bandwidth=2 * described.link.bandwidth)),
    ]
    for change in better:
        for way, prediction in predict(network, change, 128).predictions.items():
            assert 0 < prediction.step <= plain.predictions[way].step
    larger = predict(network, described, 256)
    for way, prediction in plain.predictions.items():
        assert prediction.step < larger.predictions[way].step
        assert prediction.memory.total < larger.predictions[way].memory.total
        assert prediction.images_per_second <= larger.predictions[way].images_per_second * (1 + 1e-9)


def test_every_precision_of_a_preset_predicts() -> None:
    for preset in preset_names("hardware_descriptions"):
        described = load_hardware(preset)
        for precision in described.peak_flops:
            assert predict(load_network("original_2012"), described, 64, precision).predictions["single"].step > 0


# What is refused.

DESCRIPTION: dict[str, Any] = {
    "name": "mine",
    "devices": 2,
    "peak_flops": {"float32": 1e12},
    "software": "cudnn_r2_2015",
    "memory_bandwidth": 1e11,
    "memory_bytes": 4e9,
    "link": {"name": "wire", "bandwidth": 1e9, "latency_seconds": 1e-5},
}


def test_a_description_is_read() -> None:
    assert from_mapping(Hardware, DESCRIPTION, "hardware").fractions.convolution == pytest.approx(0.398)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory_bandwith": 1.0}, "did you mean 'memory_bandwidth'"),
        ({"link": {"name": "wire", "bandwidth": 1e9}}, "missing key 'hardware.link.latency_seconds'"),
        ({"software": "cudnn_r3"}, "hardware.software is 'cudnn_r3', not one of cuda_convnet_2012"),
        ({"software": None}, "give either software"),
        ({"achieved": {"convolution": 1, "matmul": 1, "memory": 1}}, "and not both"),
        ({"memory_bandwidth": 0}, "hardware.memory_bandwidth is 0.0, must be positive"),
        ({"devices": -1}, "hardware.devices is -1, must be positive"),
        ({"peak_flops": {}}, "peak_flops is empty"),
        ({"peak_flops": {"float32": -1}}, "peak_flops.float32 is -1"),
        ({"reserved_bytes": 5e9}, "leaves nothing of memory_bytes"),
        ({"passes": {"lnr": 3}}, "did you mean 'lrn'"),
        ({"launch_seconds": -1e-6}, "must not be negative"),
        (
            {"software": None, "achieved": {"convolution": 1, "matmul": 1, "memory": 2}},
            "achieved.memory is 2.0, must be between",
        ),
        ({"one_process": 1.5}, "one_process is 1.5, must be between 0 and 1"),
    ],
)
def test_a_wrong_key_or_an_impossible_number_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        from_mapping(Hardware, {**DESCRIPTION, **change}, "hardware")


def test_a_precision_without_a_peak_rate_is_refused_with_those_that_have_one() -> None:
    with pytest.raises(ConfigurationError, match="no peak rate for precision=tf32; it has float32"):
        predict(small(), device(), 2, "tf32")


def test_an_unknown_preset_and_an_unreadable_file_are_refused(tmp_path: Any) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'two_k20'"):
        load_hardware("two_k2")
    with pytest.raises(ConfigurationError, match="cannot read the hardware description"):
        load_hardware(tmp_path / "nothing.yaml")
