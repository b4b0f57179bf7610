"""Layer costs as Johnson's lecture 8 counts them: its rules by arithmetic, and the page, tables and charts of them."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest

from alexnet_mp import ConfigurationError, load_network
from alexnet_mp.analysis.results.layer_costs import layer_costs_page, write_layer_costs
from alexnet_mp.commands import describe
from alexnet_mp.common.cli import compose
from alexnet_mp.network.costs import layer_costs
from tests.support.processes import CHECKOUT


def test_the_papers_totals_are_the_papers() -> None:
    paper = layer_costs(load_network("paper"))
    assert paper.parameters == 60_965_224
    assert paper.multiply_adds == 724_406_816
    norms = (2 * 48 * 55 * 55 + 2 * 128 * 27 * 27) * (5 + 2)
    pools = (2 * 48 * 27 * 27 + 2 * 128 * 13 * 13 + 2 * 128 * 6 * 6) * 9
    assert paper.operations == paper.multiply_adds + norms + pools


# The lecture's slide: 227x227 pixels, KiB of output, thousands of parameters, millions of operations.
LECTURE = {
    "conv1": (64 * 56 * 56, 64 * (3 * 11 * 11 + 1), 64 * 56 * 56 * 3 * 11 * 11),
    "pool1": (64 * 27 * 27, 0, 64 * 27 * 27 * 3 * 3),
    "conv2": (192 * 27 * 27, 192 * (64 * 5 * 5 + 1), 192 * 27 * 27 * 64 * 5 * 5),
    "pool2": (192 * 13 * 13, 0, 192 * 13 * 13 * 3 * 3),
    "conv3": (384 * 13 * 13, 384 * (192 * 9 + 1), 384 * 13 * 13 * 192 * 9),
    "conv4": (256 * 13 * 13, 256 * (384 * 9 + 1), 256 * 13 * 13 * 384 * 9),
    "conv5": (256 * 13 * 13, 256 * (256 * 9 + 1), 256 * 13 * 13 * 256 * 9),
    "pool5": (256 * 6 * 6, 0, 256 * 6 * 6 * 3 * 3),
    "fc6": (4096, 4096 * (9216 + 1), 4096 * 9216),
    "fc7": (4096, 4096 * (4096 + 1), 4096 * 4096),
    "fc8": (1000, 1000 * (4096 + 1), 1000 * 4096),
}


def test_the_lectures_alexnet_is_counted_as_in_the_lecture() -> None:
    counted = layer_costs(replace(load_network("one_weird_trick"), image=(3, 227, 227)))
    found = {line.name: (line.memory / 4, line.parameters, line.operations) for line in counted.lines}
    assert found == LECTURE
    by_name = {line.name: line for line in counted.lines}
    assert [by_name[name].memory // 1024 for name in ("conv1", "pool1", "conv2", "pool2")] == [784, 182, 546, 126]
    assert round(by_name["conv1"].operations / 1e6) == 73


def test_a_module_of_branches_is_one_line_and_auxiliary_classifiers_are_outside_of_the_total() -> None:
    counted = layer_costs(load_network("googlenet"))
    module = next(line for line in counted.lines if line.name == "inception3a")
    positions = 28 * 28
    inside = 64 + 96 + 128 + 16 + 32 + 192 + 32  # with the pooling's 192 maps
    assert module.memory == 4 * positions * inside
    weights = 192 * (64 + 96 + 16 + 32) + 9 * 96 * 128 + 25 * 16 * 32
    assert module.operations == positions * (weights + 192 * 9)
    assert counted.parameters == 6_998_552
    assert [line.name for line in counted.training_only] == ["aux4a", "aux4d"]
    assert sum(line.parameters for line in counted.training_only) == 13_378_280 - 6_998_552
    assert counted.operations == sum(line.operations for line in counted.lines)


def test_normalizations_over_windows_and_locally_connected_layers_are_counted() -> None:
    by_name = {line.name: line for line in layer_costs(load_network("cifar10_18pct")).lines}
    assert by_name["norm1"].operations == 32 * 16 * 16 * (3 * 3 + 2)
    local = {line.name: line for line in layer_costs(load_network("cifar10_13pct")).lines}["local3"]
    assert (local.parameters, local.operations) == (32 * 36 * (64 * 9 + 1), 32 * 36 * 64 * 9)


def test_the_command_writes_page_tables_and_charts(tmp_path: Path) -> None:
    describe.run(compose("describe", ["networks=[lenet5,cifar10_18pct]", f"out={tmp_path}"]))
    page = (tmp_path / "layer-costs.md").read_text()
    assert "networks='[lenet5,cifar10_18pct]'" in page and "61,706" in page
    with (tmp_path / "layer-costs" / "lenet5.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["parameters"]) for row in rows) == 61_706
    assert rows[0] | {"operations": ""} == {
        "layer": "conv1", "kind": "conv", "output": "6x28x28", "memory_bytes": str(4 * 6 * 28 * 28),
        "parameters": "156", "operations_each": "25", "operations": "",
    }  # fmt: skip
    for name in ("lenet5", "cifar10_18pct", "comparison"):
        assert (tmp_path / "layer-costs" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"layer-costs/{name}.png" in page


@pytest.mark.parametrize("networks", ["[]", "[lenet5,lenet5]", "[lenet6]"])
def test_networks_that_cannot_be_counted_are_refused(networks: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"each once|did you mean 'lenet5'"):
        describe.run(compose("describe", [f"networks={networks}", f"out={tmp_path}"]))
    assert not list(tmp_path.iterdir())


def test_a_table_of_others_does_not_choose_where_files_go(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="would name files"):
        write_layer_costs([replace(load_network("lenet5"), name="../../evil")], tmp_path / "a" / "b", charts=False)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot write the layer costs to"):
        describe.run(compose("describe", ["networks=[lenet5]", f"out={tmp_path / 'file'}", "charts=false"]))


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["networks=[lenet5]"], "go together"),
        (["out=docs"], "go together"),
        (["networks=[lenet5]", "out=docs", "json=costs.json"], "of one network"),
        (["networks=[lenet5]", "out=docs", "towers=1"], "of one network"),
    ],
)
def test_keys_of_one_network_and_of_several_are_not_mixed(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        describe.run(compose("describe", overrides))


def test_the_page_in_the_documentation_is_what_the_command_makes() -> None:
    page = (CHECKOUT / "docs" / "layer-costs.md").read_text()
    (names,) = re.findall(r"networks='\[(.*)\]' out=docs", page)
    counted = [layer_costs(load_network(name)) for name in names.split(",")]
    assert page == layer_costs_page(counted, charts=True, out="docs")
