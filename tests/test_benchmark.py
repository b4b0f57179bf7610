"""split_vs_single: what its JSON holds, that its baseline is the same network, and how mistakes and hangs end."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet_mp import ConfigurationError, Network, build_model, load_network, to_single_device
from alexnet_mp.benchmark.contenders import CONTENDERS
from alexnet_mp.benchmark.split_vs_single import run
from alexnet_mp.benchmark.stock import stock_network
from alexnet_mp.commands.entry import compose
from alexnet_mp.conversion import dropout_scales
from alexnet_mp.network.table import parse_network
from tests.processes import CHECKOUT, Finished, run_command

BATCH = 4
# network=small at 32x32. It crosses before conv3 pool2 [128, 7, 7], before fc6 pool5 [128, 3, 3], before fc7 256 units,
# and at the end 10 partial logits, which do not come back.
FLOATS_FORWARD = 128 * 7 * 7 + 128 * 3 * 3 + 256 + 10
FLOATS_BACKWARD = 128 * 7 * 7 + 128 * 3 * 3 + 256
CONVOLUTIONS = 48 * (3 * 9 + 1) + 128 * (48 * 25 + 1) + 192 * (256 * 9 + 1) + 192 * (192 * 9 + 1) + 128 * (192 * 9 + 1)
PARAMETERS_OF_TOWER_1 = CONVOLUTIONS + 256 * (2 * 128 * 9 + 1) + 256 * (2 * 256 + 1) + 10 * 256


def benchmark(cwd: Path, *overrides: str, deadline: float = 200) -> Finished:
    script = CHECKOUT / "benchmarks" / "split_vs_single.py"
    return run_command([sys.executable, str(script), *overrides], cwd, deadline)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("benchmark")
    small = ["network=small", "network.image=[3,32,32]", f"batch_size={BATCH}", "rounds=1", "steps=1"]
    finished = benchmark(folder, *small, "device=cpu", "threads=2", "json=split.json")
    assert finished.code == 0, finished.stderr
    for name in CONTENDERS:
        assert name in finished.stdout
    assert [path.name for path in folder.iterdir()] == ["split.json"]
    loaded: dict[str, Any] = json.loads((folder / "split.json").read_text())
    return loaded


def test_json_holds_every_contender_with_its_numbers(report: dict[str, Any]) -> None:
    assert report["batch_size"] == BATCH
    assert report["network"] == "small"
    assert {"device", "threads", "versions"} <= set(report["machine"])
    assert list(report["contenders"]) == ["split_two_processes", "split_one_process", "single_stock"]
    for values in report["contenders"].values():
        assert values["images_per_second"] > 0
        assert values["spread"] == 0  # of one round
        assert set(values["step_seconds"]) == {"forward", "backward", "optimiser"}
        assert all(seconds > 0 for seconds in values["step_seconds"].values())
        seconds_by_speed = BATCH / values["images_per_second"]
        assert sum(values["step_seconds"].values()) == pytest.approx(seconds_by_speed)
        assert values["processes"] * values["threads_per_process"] == 2
        # Weights, gradients and momentum are resident, in four bytes each.
        assert values["peak_memory_bytes"] > 3 * 4 * max(values["parameters_per_process"])


def test_both_splits_send_exactly_the_bytes_of_the_table_and_one_device_none(report: dict[str, Any]) -> None:
    expected = 4 * BATCH * (FLOATS_FORWARD + FLOATS_BACKWARD)
    for name in ("split_two_processes", "split_one_process"):
        assert report["contenders"][name]["crossing_bytes_per_step"] == expected
        assert report["contenders"][name]["table_crossing_bytes_per_step"] == expected
    assert report["contenders"]["single_stock"]["crossing_bytes_per_step"] == 0


def test_two_processes_share_the_parameters_that_one_process_holds(report: dict[str, Any]) -> None:
    towers = [PARAMETERS_OF_TOWER_1 + 10, PARAMETERS_OF_TOWER_1]  # tower 0 has the classifier's bias
    assert report["contenders"]["split_two_processes"]["parameters_per_process"] == towers
    assert report["contenders"]["split_one_process"]["parameters_per_process"] == [sum(towers)]
    assert report["contenders"]["single_stock"]["parameters_per_process"] == [sum(towers)]


def test_stock_network_has_the_papers_parameter_count() -> None:
    with torch.device("meta"):
        network = stock_network(load_network("paper"))
    assert sum(parameter.numel() for parameter in network.parameters()) == 60_965_224


def original_2012_in_small() -> Network:
    table = load_network("original_2012").to_mapping()
    table["image"], table["classes"] = [3, 67, 67], 10
    for layer in ("fc6", "fc7"):
        table["layers"][layer]["units"] = 16
    return parse_network(table)


@pytest.mark.parametrize("network", [load_network("small"), original_2012_in_small()], ids=["small", "original_2012"])
def test_stock_network_computes_what_the_towers_compute(network: Network) -> None:
    towers = build_model(network, dtype=torch.float64).eval()
    stock = stock_network(network).double().eval()
    # Its dropout is inverted, so the same function has scaled weights after dropout rows.
    scales = dropout_scales(network, "inverted")
    weights = to_single_device(towers.state_dict())
    stock.load_state_dict({name: tensor * scales.get(name, 1.0) for name, tensor in weights.items()})
    images = 64 * torch.randn(2, *network.image, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(stock(images), towers(images), rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("contenders=[]", "name at least one"),
        ("+stepss=3", "unknown key 'stepss'; did you mean 'steps'?"),
        ("rounds=0", "rounds is 0, must be positive"),
        ("threads=3", "use a multiple of 2"),
        ("json=nowhere/split.json", "there is no folder"),
        ("network=ungrouped contenders=[split_one_process]", "nothing to split"),
    ],
)
def test_a_mistake_is_refused_before_anything_runs(overrides: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        run(compose("split_vs_single", overrides.split()))


def test_an_unknown_contender_ends_in_one_line(tmp_path: Path) -> None:
    finished = benchmark(tmp_path, "contenders=[split_two_proceses]")
    assert finished.code == 2
    assert finished.stdout == ""
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: contenders is 'split_two_proceses', not one of split_two_processes, ")
    assert line.endswith("did you mean 'split_two_processes'?")


def test_a_process_that_is_not_done_in_time_ends_with_where_it_was(tmp_path: Path) -> None:
    # Building 61 million parameters takes longer than this.
    finished = benchmark(tmp_path, "contenders=[single_stock]", "device=cpu", "deadline_seconds=0.3", deadline=60)
    assert finished.code == 1
    assert "round 1 of 3, single_stock: not done after deadline_seconds=0.3" in finished.stderr
    assert 'File "' in finished.stderr
