"""split_vs_single: what its JSON holds, that its baseline is the same network, and how mistakes and hangs end."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet_mp import ConfigurationError, load_network
from alexnet_mp.common.cli import compose
from alexnet_mp.model.single_device import STOCK_PARTS, single_network
from alexnet_mp.performance.benchmark.measurement import Task
from alexnet_mp.performance.benchmark.split_vs_single import run
from alexnet_mp.performance.benchmark.timed_link import waiting
from alexnet_mp.performance.benchmark.variants import VARIANTS
from tests.support.processes import Finished, run_script

BATCH = 4
# network=small at 32x32. It crosses before conv3 pool2 [128, 7, 7], before fc6 pool5 [128, 3, 3], before fc7 256 units,
# and at the end 10 partial logits, which do not come back.
FLOATS_FORWARD = 128 * 7 * 7 + 128 * 3 * 3 + 256 + 10
FLOATS_BACKWARD = 128 * 7 * 7 + 128 * 3 * 3 + 256
CONVOLUTIONS = 48 * (3 * 9 + 1) + 128 * (48 * 25 + 1) + 192 * (256 * 9 + 1) + 192 * (192 * 9 + 1) + 128 * (192 * 9 + 1)
PARAMETERS_OF_TOWER_1 = CONVOLUTIONS + 256 * (2 * 128 * 9 + 1) + 256 * (2 * 256 + 1) + 10 * 256


NAMES = [
    "split_two_processes",
    "split_one_process",
    "single_ours",
    "single_stock",
    "single_stock_tuned",
    "ungrouped",
    "one_column",
    "ddp_stock",
    "ddp_stock_tuned",
    "ddp_ours",
    "pipeline_stock",
]
SOME = ["split_two_processes", "single_stock", "pipeline_stock"]  # each kind of start and of step


def benchmark(cwd: Path, *overrides: str) -> Finished:
    """The script, whose variants are processes of their own, in this process."""
    return run_script("benchmarks/split_vs_single.py", overrides, cwd)


@pytest.fixture(scope="module", params=["some", pytest.param("all", marks=pytest.mark.slow)])
def report(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("benchmark")
    small = ["network=small", "network.image=[3,32,32]", f"batch_size={BATCH}", "rounds=1", "repeats=0", "steps=1"]
    chosen = [f"variants=[{','.join(SOME)}]"] if request.param == "some" else []
    finished = benchmark(folder, *small, *chosen, "device=cpu", "threads=2", "json=split.json", "chart=split.png")
    assert finished.code == 0, finished.stderr
    for name in SOME if chosen else NAMES:
        assert name in finished.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["split.json", "split.png"]
    assert (folder / "split.png").read_bytes().startswith(b"\x89PNG")
    loaded: dict[str, Any] = json.loads((folder / "split.json").read_text())
    assert list(loaded["variants"]) == (SOME if chosen else NAMES)
    return loaded


def test_json_holds_every_variant_with_its_numbers(report: dict[str, Any]) -> None:
    assert report["batch_size"] == BATCH
    assert report["network"] == "small"
    assert {"device", "threads", "versions"} <= set(report["machine"])
    bound = report["matrix_bound_images_per_second"]
    assert bound > 0
    for name, values in report["variants"].items():
        assert values["images_per_second"] > 0
        assert values["spread"] == 0  # of one round
        assert values["fraction_of_bound"] == pytest.approx(values["images_per_second"] / bound)
        seconds = values["step_seconds"]
        whole = seconds["forward_and_backward"] + seconds["optimizer"]
        assert whole == pytest.approx(BATCH / values["images_per_second"])
        if name == "pipeline_stock":
            assert seconds["forward"] is None and seconds["backward"] is None
        else:
            passes = (seconds[part] for part in ("forward", "backward", "exposed_crossing", "skew"))
            assert sum(passes) == pytest.approx(seconds["forward_and_backward"])
        assert values["processes"] * values["threads_per_process"] == 2
        # Weights, gradients and momentum are resident, in four bytes each.
        assert values["peak_memory_bytes"] > 3 * 4 * max(values["parameters_per_process"])
        assert values["joules_per_image"] is None  # CPUs do not tell


def test_waits_are_reported_where_something_crosses_and_null_elsewhere(report: dict[str, Any]) -> None:
    for name, values in report["variants"].items():
        if name.startswith("split"):
            assert 0 <= values["exposed_crossing_fraction"] < 1
            assert {name: list(directions) for name, directions in values["crossings"].items()} == {
                "conv3": ["forward", "backward"],
                "fc6": ["forward", "backward"],
                "fc7": ["forward", "backward"],
                "fc8": ["forward"],
            }
        else:
            assert values["exposed_crossing_fraction"] is None
            assert values["crossings"] is None


def test_the_bound_has_every_product_of_a_step(report: dict[str, Any]) -> None:
    layers = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    passes = ["forward", "input gradient", "weight gradient"]
    expected = [f"{layer} {each}" for layer in layers for each in passes]
    expected.remove("conv1 input gradient")
    assert list(report["matrix_bound"]["seconds"]) == expected
    assert min(report["matrix_bound"]["seconds"].values()) > 0


def test_the_split_sends_exactly_the_bytes_of_the_table_and_the_others_none(report: dict[str, Any]) -> None:
    expected = 4 * BATCH * (FLOATS_FORWARD + FLOATS_BACKWARD)
    for name, values in report["variants"].items():
        assert values["crossing_bytes_per_step"] == (expected if name.startswith("split") else 0)
        assert values["table_crossing_bytes_per_step"] == values["crossing_bytes_per_step"]


def test_data_parallel_processes_reduce_every_gradient_once(report: dict[str, Any]) -> None:
    for name, values in report["variants"].items():
        reduced = 4 * (2 * PARAMETERS_OF_TOWER_1 + 10) if name.startswith("ddp") else 0
        assert values["all_reduce_bytes_per_step"] == reduced
        # In a ring of two, each sends half of it twice.
        assert values["all_reduce_bytes_sent_in_a_ring"] == reduced


def test_processes_hold_a_tower_a_part_or_the_whole(report: dict[str, Any]) -> None:
    towers = [PARAMETERS_OF_TOWER_1 + 10, PARAMETERS_OF_TOWER_1]  # tower 0 has the classifier's bias
    for name, values in report["variants"].items():
        held = values["parameters_per_process"]
        if name == "split_two_processes":
            assert held == towers
        elif name == "pipeline_stock":
            assert len(held) == 2 and sum(held) == sum(towers)
        elif name.startswith("ddp"):
            assert held == [sum(towers)] * 2
        elif name in ("split_one_process", "single_ours", "single_stock", "single_stock_tuned"):
            assert held == [sum(towers)]


@pytest.mark.parametrize("name", ["split_one_process", "single_ours", "single_stock", "ungrouped", "one_column"])
def test_variants_of_one_process_train(name: str) -> None:
    network = replace(load_network("small"), image=(3, 32, 32))
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(BATCH, 3, 32, 32, generator=generator), torch.arange(BATCH)
    with VARIANTS[name].build(Task(name, network, BATCH, 1, 0, False, "cpu", 1, 0, 60.0)) as train_step:
        weights = [weight for group in train_step.optimizer.param_groups for weight in group["params"]]
        before = [weight.detach().clone() for weight in weights]
        losses = train_step.forward(*train_step.on_devices(images, labels), 0)
        torch.autograd.backward(losses)
        train_step.optimizer.step()
        assert all(torch.isfinite(loss) for loss in losses)
        assert not any(torch.equal(old, new) for old, new in zip(before, weights, strict=True))
        assert sum(weight.numel() for weight in weights) == train_step.parameters
        if name == "split_one_process":
            assert train_step.link is not None
            (waits,) = waiting([train_step.link.exchanges])
            assert all(wait.skew == 0 for wait in waits.values())  # nobody else to be late


@pytest.mark.slow
def test_a_sweep_leads_with_its_first_setup_and_holds_all(tmp_path: Path) -> None:
    small = [
        "network=small",
        "batch_size=[2,4]",
        "towers=[1,2]",
        "rounds=1",
        "repeats=0",
        "steps=1",
        "warmup_steps=0",
        "threads=2",
    ]
    finished = benchmark(tmp_path, *small, "variants=[single_ours]", "device=cpu", "json=split.json")
    assert finished.code == 0, finished.stderr
    loaded = json.loads((tmp_path / "split.json").read_text())
    found = [(setup["towers"], setup["batch_size"]) for setup in loaded["sweep"]]
    assert found == [(1, 2), (1, 4), (2, 2), (2, 4)]
    assert {key: value for key, value in loaded.items() if key != "sweep"} == loaded["sweep"][0]


def test_stock_network_has_the_papers_parameter_count() -> None:
    with torch.device("meta"):
        network = single_network(load_network("paper"), STOCK_PARTS)
    assert sum(parameter.numel() for parameter in network.parameters()) == 60_965_224


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("variants=[]", "name at least one"),
        ("+stepss=3", "unknown key 'stepss'; did you mean 'steps'?"),
        ("rounds=0", "rounds is 0, must be positive"),
        ("threads=3", "use a multiple of 2"),
        ("json=nowhere/split.json", "must lie in a folder that exists"),
        ("chart=nowhere/split.png", "must lie in a folder that exists"),
        ("batch_size=[64,64]", "batch_size is [64, 64]; give one positive number, or several different ones"),
        ("batch_size=[]", "batch_size is []"),
        ("batch_size=0", "batch_size is [0]"),
        ("towers=[2,3]", "3 towers do not divide"),
        ("batch_size=3 variants=[ddp_stock]", "batch_size=3 cannot be shared equally by 2"),
        ("network=ungrouped variants=[split_one_process]", "nothing to split"),
    ],
)
def test_a_mistake_is_refused_before_anything_runs(overrides: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        run(compose("benchmark/split_vs_single", overrides.split()))


def test_an_unknown_variant_ends_in_one_line(tmp_path: Path) -> None:
    finished = benchmark(tmp_path, "variants=[split_two_proceses]")
    assert finished.code == 2
    assert finished.stdout == ""
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: variants is 'split_two_proceses', not one of split_two_processes, ")
    assert line.endswith("did you mean 'split_two_processes'?")


def test_a_process_that_is_not_done_in_time_ends_with_where_it_was(tmp_path: Path) -> None:
    # Building 61 million parameters takes longer than this.
    finished = benchmark(tmp_path, "variants=[single_stock]", "device=cpu", "deadline_seconds=0.3")
    assert finished.code == 1
    assert "round 1 of 3, single_stock: not done after deadline_seconds=0.3" in finished.stderr
    assert 'File "' in finished.stderr
