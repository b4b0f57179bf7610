"""The cost model's choice between ways to train, over all described hardware; and what a description may not say."""

from dataclasses import replace
from typing import Any

import pytest

from alexnet_mp import ConfigurationError, Network, load_network
from alexnet_mp.common.presets import preset_names
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.performance.cost_model.hardware import Hardware, load_hardware
from alexnet_mp.performance.cost_model.prediction import predict
from alexnet_mp.performance.cost_model.report import choose
from tests.support.cost_model import device, small


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
