"""The ablations are what the paper and the original code say: counts of parameters, and what changes beside."""

from typing import Any

import pytest

from alexnet_mp.commands import describe, plan
from alexnet_mp.common.cli import compose
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import Network, load_network, parse_network
from tests.support.presets import composed


def with_ablation(name: str, network: str = "paper") -> Network:
    return parse_network(composed("describe", f"network={network}", f"ablation={name}")["network"])


def changed(before: Any, after: Any, above: str = "") -> set[str]:
    """The dotted keys in which two nested mappings differ."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return set() if before == after else {above}
    keys = {**before, **after}
    return {key for k in keys for key in changed(before.get(k), after.get(k), f"{above}.{k}" if above else k)}


# What a middle convolution of two towers has: conv4 of the paper and conv5, and conv4 once it reads both as conv3 did.
CONV4, CONV5, WHOLE = 2 * 192 * (192 * 9 + 1), 2 * 128 * (192 * 9 + 1), 60_965_224
PARAMETERS = {
    "no_lrn": WHOLE,
    "pool_2x2": WHOLE,
    "tanh": WHOLE,
    "one_column": 59_798_312,
    "no_crossings": 60_714_408,
    "conv6": WHOLE + 2 * 128 * (256 * 9 + 1),  # 128 kernels a tower that read 256 maps of both through 3x3
    "no_conv3": WHOLE - CONV4,  # conv4 becomes as large as conv3 was
    "no_conv4": WHOLE - CONV4,
    "no_conv5": WHOLE - CONV5 + 4096 * 2 * (192 - 128) * 36,  # fc6 reads 6x6 of conv4's maps
    "no_dropout": WHOLE,
    "std_of_145": WHOLE,
    "run_147": WHOLE,
    "run_166": WHOLE,
    "run_167": WHOLE,
    "run_177": WHOLE,
}


@pytest.mark.parametrize("network", ["paper", "original_2012"])
@pytest.mark.parametrize("name", PARAMETERS)
def test_an_ablation_has_the_parameters_of_its_source(name: str, network: str) -> None:
    assert network_cost(with_ablation(name, network)).parameters == PARAMETERS[name]


def test_run_147_has_the_geometry_of_its_file() -> None:
    costs = network_cost(with_ablation("run_147", "original_2012"))
    sides = {row.name: row.output_shape[1] for row in costs.rows if row.kind in ("conv", "maxpool")}
    found = {"conv1": 55, "pool1": 28, "conv2": 26, "pool2": 13, "conv3": 13, "conv4": 13, "conv5": 11, "pool5": 6}
    assert sides == found  # layers-147.cfg: partialSum divides 55, 28 - 2, 13 and 11
    of_a_tower = 48 * 363 * 55**2 + 128 * 48 * 25 * 26**2 + (192 * 256 + 192 * 192) * 9 * 13**2 + 128 * 192 * 9 * 11**2
    assert costs.multiply_adds == 2 * (of_a_tower + 2048 * 256 * 36 + 2048 * 4096 + 1000 * 2048)
    assert round(costs.multiply_adds / 1e6, 1) == 686.9


ORDERS = {
    ("conv6", "paper"): ["conv5", "relu5", "pool5", "conv6", "relu_c6", "fc6"],
    ("conv6", "original_2012"): ["conv5", "pool5", "relu5", "conv6", "relu_c6", "fc6"],  # layers-146-2012-2011.cfg
    ("run_166", "original_2012"): ["conv2", "lrn2", "spatial2", "pool2", "relu2", "conv3"],  # layers-166.cfg
    ("run_167", "original_2012"): ["conv2", "relu2", "pool2", "conv3"],  # layers-167.cfg
    ("run_177", "original_2012"): ["conv4", "relu4", "dropout4", "conv5"],  # layers-177.cfg
    ("no_conv3", "original_2012"): ["spatial2", "pool2", "conv4", "relu4", "conv5"],
    ("no_conv5", "paper"): ["conv4", "relu4", "pool5", "fc6"],
    ("no_dropout", "paper"): ["fc6", "relu6", "fc7", "relu7", "fc8"],
}


@pytest.mark.parametrize("name, network", ORDERS)
def test_an_ablations_rows_stand_in_their_order(name: str, network: str) -> None:
    rows, expected = list(with_ablation(name, network).rows), ORDERS[name, network]
    start = rows.index(expected[0])
    assert rows[start : start + len(expected)] == expected


def test_the_later_runs_fall_by_their_factors() -> None:
    # dexp[1000,4], dexp[250,0,4] and dexp[10,2] of lr.cu: so many equal parts, from the first rate to its factor.
    for name, factor in (("run_166", 1000), ("run_167", 1000), ("run_177", 250)):
        recipe = composed("train", "experiment=imagenet_original_2012", f"ablation={name}")["recipe"]
        steps = [each for each in recipe["schedule"]["milestones"] if each["kind"] == "weights"]
        assert [each["after_epoch"] for each in steps] == [recipe["epochs"] * part // 4 for part in (1, 2, 3)]
        expected = [0.01 * factor ** (-part / 3) for part in (1, 2, 3)]
        assert [each["learning_rate"] for each in steps] == pytest.approx(expected, rel=1e-4)
        (biases,) = [each for each in recipe["schedule"]["milestones"] if each["kind"] == "biases"]
        assert (biases["after_epoch"], biases["learning_rate"]) == (recipe["epochs"] // 2, 0.002)


@pytest.mark.parametrize("network", ["paper", "original_2012", "cifar10_study"])
def test_without_normalization_there_is_none_as_in_run_148(network: str) -> None:
    kinds = {row.kind for row in network_cost(with_ablation("no_lrn", network)).rows}
    assert "conv" in kinds and not kinds & {"lrn", "spatial_norm", "batch_norm"}


def test_one_column_is_the_table_of_that_name() -> None:
    costs, table = network_cost(with_ablation("one_column")), network_cost(load_network("one_column"))
    shown = [(row.name, row.kind, row.output_shape, row.weights) for row in costs.rows]
    assert shown == [(row.name, row.kind, row.output_shape, row.weights) for row in table.rows]


def test_without_crossings_only_the_logits_cross() -> None:
    costs = network_cost(with_ablation("no_crossings"))
    assert [row.name for row in costs.rows if row.crossing_floats_forward] == ["fc8"]
    assert costs.crossing_floats_backward == 0
    assert costs.row("fc6").output_shape == (4096,) and costs.row("fc7").output_shape == (2048,)


@pytest.mark.parametrize("network", ["paper", "original_2012", "cifar10_study"])
def test_pooling_without_overlap_leaves_as_many_values(network: str) -> None:
    before, after = network_cost(load_network(network)), network_cost(with_ablation("pool_2x2", network))
    assert [row.output_shape for row in before.rows] == [row.output_shape for row in after.rows]
    assert {
        row.size
        for row in with_ablation("pool_2x2", network).rows.values()
        if hasattr(row, "stride") and type(row).__name__ == "MaxPool"
    } == {2}


@pytest.mark.parametrize(
    "name, keys",
    [
        ("no_color_noise", {"recipe.augmentation.color"}),
        ("half_precision_crossings", {"crossing_dtype"}),
        ("no_crops", {"recipe.augmentation.crop", "recipe.augmentation.flip"}),
        ("std_of_145", {f"network.layers.conv{n}.std" for n in (3, 4, 5)}),
        ("no_lrn", {"network.layers.lrn1", "network.layers.lrn2"}),
        ("tanh", {f"network.layers.relu{n}.kind" for n in range(1, 8)}),
    ],
)
def test_an_ablation_changes_one_thing(name: str, keys: set[str]) -> None:
    experiment = "experiment=imagenet_paper"
    found = changed(composed("train", experiment), composed("train", experiment, f"ablation={name}"))
    assert all(any(key == wanted or key.startswith(f"{wanted}.") for wanted in keys) for key in found), found
    assert all(any(key == wanted or key.startswith(f"{wanted}.") for key in found) for wanted in keys), found


@pytest.mark.parametrize("name", ["no_color_noise", "half_precision_crossings", "conv6"])
def test_what_an_ablation_costs_can_be_asked(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan.run(compose("plan", [f"ablation={name}"]))
    assert "90 epochs" in capsys.readouterr().out
    describe.run(compose("describe", [f"ablation={name}"]))
    assert "total" in capsys.readouterr().out
