"""`launch/plan.py`: what it prints and writes, beside published numbers and beside the benchmark, and its refusals."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from alexnet_mp import ConfigurationError
from alexnet_mp.commands import plan
from alexnet_mp.common.cli import compose
from alexnet_mp.common.presets import preset_names
from alexnet_mp.performance.cost_model.comparisons import compare_with_published, published_table, published_timings
from alexnet_mp.performance.cost_model.hardware import load_hardware
from tests.support.processes import CHECKOUT, run_script

PUBLISHED = published_timings()


def written(tmp_path: Path, *overrides: str) -> Any:
    """What the command writes as JSON."""
    plan.run(compose("plan", [*overrides, f"json={tmp_path / 'plan.json'}"]))
    return json.loads((tmp_path / "plan.json").read_text())


def test_json_holds_every_way_with_its_parts(tmp_path: Path) -> None:
    values = written(tmp_path)
    assert (values["network"], values["batch_size"]) == ("paper", 128)
    assert list(values["ways"]) == ["split", "single", "data_parallel"]
    for way in values["ways"].values():
        seconds = way["seconds"]
        compute = sum(seconds[part] for part in ("convolution", "matmul", "elementwise", "optimizer"))
        exposed = sum(seconds[f"{part}_exposed"] for part in ("crossing", "all_reduce", "host"))
        assert way["step_seconds"] == pytest.approx(compute + exposed)
        assert way["images_per_second"] == pytest.approx(128 / way["step_seconds"])
        assert way["days"] == pytest.approx(90 * 1_281_167 / way["images_per_second"] / 86_400)
        memory = way["memory_bytes"]
        parts = ("parameters", "gradients", "momentum", "activations", "buffers", "reserved")
        assert memory["total"] == sum(memory[part] for part in parts)
    assert values["choice"] in values["ways"]


def test_the_table_has_a_column_a_way_and_ends_in_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    plan.run(compose("plan", ["hardware=two_a100_nvlink", "precision=bfloat16", "crossing_dtype=bfloat16"]))
    lines = capsys.readouterr().out.splitlines()
    assert "bfloat16, on two A100 80 GB, NVLink" in lines[0]
    assert re.search(r"split \(2 devices\) +single \(1 device\) +data_parallel \(2 devices\)", lines[2])
    assert any(line.startswith("into conv3  forward") for line in lines)
    assert lines[-1].startswith("Choose ")
    assert max(map(len, lines[:-1])) < 120


def test_the_page_on_gpus_has_the_predictions_that_the_plan_makes(tmp_path: Path) -> None:
    page = (CHECKOUT / "docs" / "gpu.md").read_text()
    rows = re.findall(
        r"^\| `(\w+)` \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| (all three|none) \|", page, re.MULTILINE
    )
    assert len(rows) == 6
    for preset, batch, *speeds, bound in rows:
        ways = written(tmp_path, f"hardware={preset}", "precision=bfloat16", f"batch_size={batch.replace(',', '')}")[
            "ways"
        ]
        assert [f"{way['images_per_second']:,.0f}" for way in ways.values()] == speeds
        assert [way["seconds"]["host_exposed"] > 0 for way in ways.values()] == [bound == "all three"] * 3


@pytest.mark.parametrize("preset", preset_names("hardware_descriptions"))
def test_every_device_prints_a_plan(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan.run(compose("plan", [f"hardware={preset}"]))
    assert capsys.readouterr().out.splitlines()[-1].startswith("Choose ")


# How far a prediction may be from what was published: Overfeat's own numbers gave the fractions; the others are within
# a fifth, as docs/cost-model.md says.
TOLERANCE = 0.20


@pytest.mark.parametrize("number", PUBLISHED, ids=lambda number: number.name)
def test_predictions_are_as_near_to_published_numbers_as_the_page_says(number: Any) -> None:
    error = compare_with_published(number)["error"]
    assert abs(error) < (0.01 if number.calibrates else TOLERANCE)


def test_published_numbers_are_those_of_their_sources() -> None:
    ms = {
        (number.network, number.software, number.precision): number.published[0]
        for number in PUBLISHED
        if number.unit == "ms"
    }
    one, overfeat = "one_weird_trick", "overfeat_fast"
    # convnet-benchmarks, README.md, "Imagenet Winners Benchmarking".
    assert ms == {
        (one, "cudnn_r4_2016", "float16"): 71,
        (one, "cudnn_r4_2016", "float32"): 81,
        (one, "cuda_convnet2_2014", "float32"): 177,
        (one, "cudnn_r2_2015", "float32"): 231,
        (overfeat, "cudnn_r4_2016", "float16"): 242,
        (overfeat, "cudnn_r4_2016", "float32"): 268,
        (overfeat, "cuda_convnet2_2014", "float32"): 723,
        (overfeat, "cudnn_r2_2015", "float32"): 810,
    }


def test_no_number_that_calibrates_is_one_of_the_predictions() -> None:
    assert {number.network for number in PUBLISHED if number.calibrates} == {"overfeat_fast"}


def test_an_error_is_relative_to_the_nearer_end_of_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    gtx = next(number for number in PUBLISHED if "GTX 580" in number.name)
    values = compare_with_published(gtx)
    assert values["published"] == [5, 6]
    assert values["error"] == pytest.approx(values["predicted"] / 5 - 1)


def test_the_page_shows_what_check_prints(capsys: pytest.CaptureFixture[str]) -> None:
    plan.run(compose("plan", ["check=true"]))
    printed = capsys.readouterr().out.rstrip()
    assert printed == published_table([compare_with_published(number) for number in PUBLISHED])
    assert printed in (CHECKOUT / "docs" / "cost-model.md").read_text()


def test_the_networks_timed_there_have_their_known_parameters_and_operations(tmp_path: Path) -> None:
    from alexnet_mp.network.costs import network_cost
    from alexnet_mp.network.table import load_network

    one, overfeat = (network_cost(load_network(name)) for name in ("one_weird_trick", "overfeat_fast"))
    assert one.parameters == 61_100_840  # as torchvision's
    convs = [96 * 3 * 121, 256 * 96 * 25, 512 * 256 * 9, 1024 * 512 * 9, 1024 * 1024 * 9]
    fcs = [1024 * 36 * 3072, 3072 * 4096, 4096 * 1000]
    biases = 96 + 256 + 512 + 1024 + 1024 + 3072 + 4096 + 1000
    assert overfeat.parameters == sum(convs) + sum(fcs) + biases
    positions = [56 * 56, 24 * 24, 12 * 12, 12 * 12, 12 * 12]
    assert overfeat.multiply_adds == sum(w * p for w, p in zip(convs, positions, strict=True)) + sum(fcs)


def report(tmp_path: Path, variants: dict[str, float], **changes: Any) -> str:
    """A report as benchmarks/split_vs_single.py writes it, as far as the comparison reads it."""
    path = tmp_path / "split.json"
    values = {
        "network": "paper",
        "batch_size": 64,
        "variants": {
            name: {"images_per_second": speed, "peak_memory_bytes": 1_000_000_000} for name, speed in variants.items()
        },
    }
    path.write_text(json.dumps({**values, **changes}))
    return f"against={path}"


def test_against_a_benchmark_the_modeled_contenders_have_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cores = "hardware=two_epyc_cores"
    ways = written(tmp_path, cores, "batch_size=64")["ways"]
    measured = {"split_two_processes": 40.0, "single_ours": 30.0, "ddp_ours": 20.0, "single_stock": 10.0}
    values = written(tmp_path, cores, report(tmp_path, measured))
    assert values["not_modeled"] == ["single_stock"]
    for name, way in (("split_two_processes", "split"), ("single_ours", "single"), ("ddp_ours", "data_parallel")):
        compared = values["variants"][name]
        assert compared["predicted_images_per_second"] == ways[way]["images_per_second"]
        assert compared["error"] == pytest.approx(ways[way]["images_per_second"] / measured[name] - 1)
        held = ways[way]["memory_bytes"]["total"] - ways[way]["memory_bytes"]["reserved"]
        assert compared["memory_error"] == pytest.approx(held / 1e9 - 1)
    assert "not modeled: single_stock" in capsys.readouterr().out


def test_a_split_in_one_process_is_one_device_only_where_a_process_has_all_cores(tmp_path: Path) -> None:
    name = report(tmp_path, {"split_one_process": 30.0, "split_two_processes": 40.0})
    assert set(written(tmp_path, "hardware=two_epyc_cores", name)["variants"]) == {
        "split_one_process",
        "split_two_processes",
    }
    assert set(written(tmp_path, "hardware=two_k20", name)["variants"]) == {"split_two_processes"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["batch_size=0"], "batch_size is 0, must be positive"),
        (["epochs=-1"], "epochs is -1"),
        (["hardware=two_gtx_58"], "did you mean 'two_gtx_580'"),
        (["precision=bfloat16"], "no peak rate for precision=bfloat16"),
        (["precision=fp8"], "precision is 'fp8', not one of float32, tf32"),
        (["+bach_size=3"], "unknown key 'bach_size'; did you mean 'batch_size'"),
        (["towers=3"], "3 towers do not divide"),
        (["against=nowhere.json"], "cannot read against=nowhere.json"),
        (["against=a.json", "check=true"], "give one"),
        (["json=nowhere/plan.json"], "json is nowhere/plan.json, must lie in a folder that exists"),
        (["device=two_k20"], "unknown key 'device'; known: network, towers, replicas, nodes, node_bandwidth, hardware"),
    ],
)
def test_a_mistake_is_refused_with_the_fix(
    overrides: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        plan.run(compose("plan", overrides))


@pytest.mark.parametrize(
    ("changes", "variants", "message"),
    [
        ({"network": "small"}, {"single_ours": 1.0}, "add network=small"),
        ({"batch_size": [64, 128]}, {"single_ours": 1.0}, "it needs batch_size and variants"),
        ({}, {"single_stock": 1.0}, "none of the variants that the model covers"),
    ],
)
def test_a_report_that_cannot_be_compared_is_refused(
    changes: dict[str, Any], variants: dict[str, float], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        plan.run(compose("plan", ["hardware=two_epyc_cores", report(tmp_path, variants, **changes)]))


def test_a_description_of_ones_own_is_a_path(tmp_path: Path) -> None:
    text = (CHECKOUT / "conf" / "hardware_descriptions" / "two_k20.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("name: two K20", "name: mine").replace("8.0e9", "1.0e3"))
    values = written(tmp_path, f"hardware={tmp_path / 'mine.yaml'}")
    assert (values["hardware"], values["choice"]) == ("mine", "single")


def test_what_the_device_benchmark_prints_is_a_description(tmp_path: Path) -> None:
    path = CHECKOUT / "benchmarks" / "device.py"
    spec = importlib.util.spec_from_file_location("device_benchmark", path)
    assert spec is not None and spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    found = {
        "bandwidth": 2e10,
        "launch": 4e-6,
        "conv": 9e10,
        "highest_conv": 1e11,
        "matmul": 6e10,
        "highest_matmul": 7e10,
        "passes.lrn": 40.0,
        "link.bandwidth": 1e9,
        "link.latency_seconds": 1e-4,
        "link.all_reduce_bandwidth": 2e9,
        "link.compute_lost": 0.5,
    }
    (tmp_path / "mine.yaml").write_text(
        benchmark._description("cpu", 2, 64, found, {"conv": 1.6e11, "bandwidth": 3e10})
    )
    device = load_hardware(tmp_path / "mine.yaml")
    assert device.peak("float32") * device.fractions.convolution == pytest.approx(9e10)
    assert device.peak("float32") * device.fractions.matmul == pytest.approx(6e10)
    assert (device.memory_bandwidth, device.passes["lrn"], device.link.compute_lost) == (2e10, 40.0, 0.5)
    assert device.one_process == pytest.approx(1.6e11 / (2 * 9e10), abs=1e-3)


def test_plan_runs_from_another_folder(tmp_path: Path) -> None:
    finished = run_script("launch/plan.py", ["network=original_2012", "json=plan.json"], tmp_path)
    assert finished.code == 0, finished.stderr
    assert finished.stdout.startswith("original_2012, batch 128")
    assert json.loads((tmp_path / "plan.json").read_text())["network"] == "original_2012"
