"""The cost model's arithmetic, by hand on networks of a few numbers."""

from dataclasses import replace
from typing import Any

import pytest

from alexnet_mp import load_network
from alexnet_mp.network.costs import network_cost
from alexnet_mp.performance.cost_model.compute import RowTime, row_times
from alexnet_mp.performance.cost_model.hardware import DeviceLink, load_hardware
from alexnet_mp.performance.cost_model.memory import kept_bytes
from alexnet_mp.performance.cost_model.overlap import all_reduce
from alexnet_mp.performance.cost_model.prediction import predict
from tests.support.cost_model import CONV1, FC2, FC3, PARAMETERS_OF_TOWER_0, PARAMETERS_OF_TOWER_1, device, small, split


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
