"""split_vs_single with `processes`: what its JSON holds, its efficiency by hand, and what it refuses."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from alexnet_mp import ConfigurationError
from alexnet_mp.common.cli import compose
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.performance.benchmark import efficiency
from alexnet_mp.performance.benchmark.measurement import MatrixWork, Measurement, Sent
from alexnet_mp.performance.benchmark.rounds import choose_variants
from alexnet_mp.performance.benchmark.settings import BenchmarkSettings
from alexnet_mp.performance.benchmark.split_vs_single import run
from alexnet_mp.performance.benchmark.variants import SPLIT
from alexnet_mp.performance.cost_model.hardware import load_hardware

BATCH = 8
TINY = ["network=small", "network.image=[3,32,32]", f"batch_size={BATCH}", "rounds=1", "repeats=0", "steps=1"]
# The preset small at 32x32, one tower: see test_benchmark.py.
FLOATS = 2 * (128 * 7 * 7 + 128 * 3 * 3 + 256) + 10
CONVOLUTIONS = 48 * (3 * 9 + 1) + 128 * (48 * 25 + 1) + 192 * (256 * 9 + 1) + 192 * (192 * 9 + 1) + 128 * (192 * 9 + 1)
PARAMETERS_OF_TOWER_0 = CONVOLUTIONS + 256 * (2 * 128 * 9 + 1) + 256 * (2 * 256 + 1) + 10 * 256 + 10


def composed(*overrides: str) -> Mapping[str, Any]:
    return compose("benchmark/split_vs_single", ["processes=[1,2,4]", *overrides])


def settings_of(*overrides: str) -> BenchmarkSettings:
    return from_mapping(BenchmarkSettings, composed(*overrides), "")


@pytest.mark.slow
def test_two_replicas_are_measured_beside_one_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "scaling.json"
    run(composed(*TINY, "processes=[1,4]", "hardware=two_epyc_cores", f"json={path}"))
    one, four = json.loads(path.read_text())["processes"]
    assert [(each["processes"], each["replicas"], each["batch_size"]) for each in (one, four)] == [(1, 1, 8), (4, 2, 8)]
    assert one["efficiency"] == 1
    assert four["times_one_process"] == pytest.approx(four["images_per_second"] / one["images_per_second"])
    assert four["all_reduce_bytes_per_step"] == 4 * PARAMETERS_OF_TOWER_0
    assert four["all_reduce_bytes_sent_in_a_ring"] == 4 * PARAMETERS_OF_TOWER_0  # 2 (n - 1) / n of two replicas
    assert four["crossing_bytes_per_step"] == 4 * FLOATS * BATCH // 2  # each replica has half of the batch
    assert one["all_reduce_bytes_per_step"] == 0
    for each in (one, four):
        assert sum(each["fractions_of_a_step"].values()) == pytest.approx(1)
        error = each["predicted_images_per_second"] / each["images_per_second"] - 1
        assert each["prediction_error"] == pytest.approx(error)
    assert "4 x 1" in capsys.readouterr().out


def measurement(seconds: float) -> Measurement:
    return Measurement(1, seconds / 2, seconds / 4, seconds / 4, False, 1, 1, Sent(), 0, None, None, None, 1, ("CPU",))


def test_efficiency_is_to_one_process_times_the_cores_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficiency, "usable_cores", lambda: 2)
    settings = settings_of(*TINY, "rounds=2")
    measured = [choose_variants(settings, setup) for setup in settings.setups()]
    step_seconds = {1: (8.0, 4.0), 2: (5.0, 2.5), 4: (5.0, 4.0)}  # of two rounds
    for each, (count, rounds) in zip(measured, step_seconds.items(), strict=True):
        assert each.setup.processes == count
        each.turns[SPLIT] += [[measurement(seconds)] * count for seconds in rounds]
    for each, count, seconds in zip(measured[:2], (1, 2), (1.0, 1.25), strict=True):  # products of one tower
        each.bound += [[MatrixWork({"all": seconds}, {}, 1)] * count] * 2
    one, two, four = efficiency.summarize_processes(settings, measured, 1, None, {})["processes"]
    assert one["efficiency_of_rounds"] == [1, 1]
    assert two["efficiency_of_rounds"] == pytest.approx([8 / 5 / 2] * 2)
    assert four["efficiency_of_rounds"] == pytest.approx([8 / 5 / 2, 4 / 4 / 2])  # two cores, not four
    assert four["efficiency"] == pytest.approx((0.8 + 0.5) / 2)
    # One process does both towers' products; four share the cores of two.
    bounds = [each["matrix_bound_images_per_second"] for each in (one, two, four)]
    assert bounds == pytest.approx([BATCH / 2.0, BATCH / 1.25, BATCH / 1.25])


def test_with_linear_scaling_every_replica_has_the_batch() -> None:
    assert [each.batch_size for each in settings_of(*TINY, "batch_scaling=linear").setups()] == [
        BATCH,
        BATCH,
        2 * BATCH,
    ]


def test_one_process_of_one_thread_is_predicted_with_one_core() -> None:
    cores = load_hardware("two_epyc_cores")
    speeds = [efficiency.prediction_of(setup, cores).images_per_second for setup in settings_of().setups()]
    assert speeds[1] == pytest.approx(2 * speeds[0], rel=0.05)
    assert speeds[2] < speeds[1]  # the same cores, and two updates


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("processes=[2,4]", "begin with 1"),
        ("processes=[1,3]", "3 processes cannot hold replicas of 2 towers"),
        ("batch_size=63", "batch_size=63 cannot be shared equally by 2 replicas"),
        ("rounds=0", "rounds is 0"),
        ("json=nowhere/scaling.json", "must lie in a folder that exists"),
        ("variants=[single_ours]", "processes compares split_two_processes on CPUs"),
        ("device=cuda", "processes compares split_two_processes on CPUs"),
        ("batch_size=[64,128]", "processes needs one batch_size"),
        ("processes=null batch_scaling=linear", "are for processes"),
        ("hardware=two_cores", "not one of"),
    ],
)
def test_what_cannot_be_measured_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        run(composed(*override.split()))
