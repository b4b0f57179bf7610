"""The ablations are what the paper and the original code say: counts of parameters, and what changes beside."""

from typing import Any

import pytest

from alexnet_mp.commands import describe, plan
from alexnet_mp.common.cli import compose
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import Network, load_network, parse_network


def with_ablation(name: str, network: str = "paper") -> Network:
    return parse_network(compose("describe", [f"network={network}", f"ablation={name}"])["network"])


def changed(before: Any, after: Any, above: str = "") -> set[str]:
    """The dotted keys in which two nested mappings differ."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return set() if before == after else {above}
    keys = {**before, **after}
    return {key for k in keys for key in changed(before.get(k), after.get(k), f"{above}.{k}" if above else k)}


# conv6 adds 128 kernels a tower that read 256 maps of both through 3x3.
PARAMETERS = {
    "no_lrn": 60_965_224,
    "pool_2x2": 60_965_224,
    "tanh": 60_965_224,
    "one_column": 59_798_312,
    "no_crossings": 60_714_408,
    "conv6": 60_965_224 + 2 * 128 * (256 * 9 + 1),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_an_ablation_has_the_parameters_of_its_source(name: str) -> None:
    assert network_cost(with_ablation(name)).parameters == PARAMETERS[name]


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
        ("no_lrn", {"network.layers.lrn1", "network.layers.lrn2"}),
        ("tanh", {f"network.layers.relu{n}.kind" for n in range(1, 8)}),
    ],
)
def test_an_ablation_changes_one_thing(name: str, keys: set[str]) -> None:
    experiment = ["experiment=imagenet_paper"]
    found = changed(compose("train", experiment), compose("train", [*experiment, f"ablation={name}"]))
    assert all(any(key == wanted or key.startswith(f"{wanted}.") for wanted in keys) for key in found), found
    assert all(any(key == wanted or key.startswith(f"{wanted}.") for key in found) for wanted in keys), found


@pytest.mark.parametrize("name", ["no_color_noise", "half_precision_crossings", "conv6"])
def test_what_an_ablation_costs_can_be_asked(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan.run(compose("plan", [f"ablation={name}"]))
    assert "90 epochs" in capsys.readouterr().out
    describe.run(compose("describe", [f"ablation={name}"]))
    assert "total" in capsys.readouterr().out
