"""Rows beyond layers that follow one another: locally-connected layers, branches and auxiliary classifiers."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from alexnet_mp import ConfigurationError, load_network
from alexnet_mp.checkpoint.convert.dropout import dropout_scales
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import Network, parse_network
from alexnet_mp.training.loss import LossOnEveryTower
from tests.support import independent
from tests.support.foreign import assert_same_gradients, images_and_labels, leaves, randomized


@pytest.mark.parametrize(("stride", "pad"), [(1, 0), (2, 1)])
def test_a_locally_connected_layer_has_strides_and_edges(stride: int, pad: int) -> None:
    rows = {
        "local1": {"kind": "local", "kernels": 4, "size": 3, "stride": stride, "pad": [pad, pad], "reads": "image"}
        | {"std": 0.1, "bias": 0},
        "fc2": {"kind": "classifier", "std": 0.1, "bias": 0},
    }
    network = parse_network({"name": "x", "towers": 1, "image": [2, 9, 9], "classes": 3, "layers": rows})
    model = randomized(network)
    single, (images, _) = leaves(model), images_and_labels(network)
    maps = independent.local(images, single["local1.weight"], single["local1.bias"], pad, stride)
    expected = F.linear(maps.flatten(1), single["fc2.weight"], single["fc2.bias"])
    torch.testing.assert_close(model(images), expected, rtol=1e-10, atol=1e-12)
    positions = ((9 + 2 * pad - 3) // stride + 1) ** 2
    assert network_cost(network).row("local1").parameters(0) == positions * 4 * (2 * 3 * 3 + 1)


def branching(towers: int) -> Network:
    """Two branches over conv1, one of which begins with a ReLU; then a layer that reads all towers."""
    conv_row = {"kind": "conv", "size": 3, "pad": [1, 1], "std": 0.1, "bias": 0}
    rows = {
        "conv1": {**conv_row, "kernels": 4, "reads": "image"},
        "mixed": {
            "kind": "branches",
            "branches": {
                "a": {"relu": {"kind": "relu"}, "conv": {**conv_row, "kernels": 6, "reads": "own"}},
                "b": {"mean": {"kind": "avgpool", "size": 3, "stride": 1, "pad": [1, 1]}},
            },
        },
        "relu2": {"kind": "relu"},
        "conv3": {**conv_row, "kernels": 4, "reads": "both"},
        "fc4": {"kind": "classifier", "std": 0.1, "bias": 0},
    }
    mapping = {"name": "x", "towers": 1, "image": [3, 6, 6], "classes": 4, "layers": rows}
    return parse_network(mapping).cut_into(towers)


@pytest.mark.parametrize("towers", [1, 2])
def test_branches_are_joined_within_each_tower(towers: int) -> None:
    model = randomized(branching(towers))
    w, (images, labels) = leaves(model), images_and_labels(model.network)
    x = F.conv2d(images, w["conv1.weight"], w["conv1.bias"], padding=1)
    a = F.conv2d(x.relu(), w["mixed_a_conv.weight"], w["mixed_a_conv.bias"], padding=1, groups=towers)
    b = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)  # of what the other branch's ReLU must have left alone
    halves = zip(a.chunk(towers, dim=1), b.chunk(towers, dim=1), strict=True)
    x = torch.cat([half for pair in halves for half in pair], dim=1).relu()
    x = F.conv2d(x, w["conv3.weight"], w["conv3.bias"], padding=1)
    expected = F.linear(x.flatten(1), w["fc4.weight"], w["fc4.bias"])
    logits = model(images)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-12)
    F.cross_entropy(logits, labels).backward()
    F.cross_entropy(expected, labels).backward()
    assert_same_gradients(model, w)


def with_rows(rows: Mapping[str, Any], towers: int = 1) -> Network:
    first = {"kind": "conv", "kernels": 4, "size": 3, "reads": "image", "std": 0.1, "bias": 0}
    last = {"kind": "classifier", "std": 0.1, "bias": 0}
    layers = {"conv1": first, **rows, "fc2": last}
    return parse_network({"name": "x", "towers": towers, "image": [3, 8, 8], "classes": 3, "layers": layers})


RELU = {"kind": "relu"}
FC = {"kind": "fc", "units": 4, "reads": "own", "std": 0.1, "bias": 0}
LAST = {"kind": "classifier", "std": 0.1, "bias": 0}
CONV = {"kind": "conv", "kernels": 4, "size": 3, "reads": "own", "std": 0.1, "bias": 0}
LOCAL = CONV | {"kind": "local"}


def branches(**inside: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "branches", "branches": inside}


def auxiliary(**layers: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "auxiliary", "loss_weight": 0.3, "layers": layers}


@pytest.mark.parametrize(
    ("rows", "towers", "message"),
    [
        ({"m": {"kind": "branches"}}, 1, "missing key 'network.layers.m.branches'"),
        ({"m": branches()}, 1, "m needs at least one branch"),
        ({"m": branches(a={})}, 1, "m needs at least one branch, and each a row"),
        ({"m": branches(a={"f": FC})}, 1, "m_a_f is fc, which cannot stand in a branch"),
        ({"m": branches(a={"c": CONV | {"reads": "both"}})}, 1, "m_a_c reads both"),
        ({"m": branches(a={"c": CONV}, b={"r": RELU})}, 1, "maps of different sizes"),
        (
            {"m": branches(a={"c": branches(x={"r": RELU})})},
            1,
            r"m\.branches\.a\.c is branches, which cannot be inside",
        ),
        ({"m": branches(a={"r": RELU}), "m_a_r": RELU}, 1, "full name m_a_r"),
        ({"m": branches(a={"c": CONV | {"stride": 0}})}, 1, r"branches\.a\.c\.stride is 0"),
        ({"m": branches(a={"c": CONV | {"sice": 3}})}, 1, r"branches\.a\.c\.sice"),
        ({"x": auxiliary(f=FC)}, 1, "the last row of x must be the classifier"),
        ({"x": auxiliary(f=LAST, l=LAST)}, 1, "x.f is classifier"),
        ({"x": auxiliary(l=LAST) | {"loss_weight": -1}}, 1, "loss_weight is -1.0, must not be negative"),
        ({"x": auxiliary(l=LAST)}, 2, r"x \(auxiliary\) cannot be cut into 2"),
        ({"local2": LOCAL}, 2, r"local2 \(local\) cannot be cut into 2 towers"),
    ],
)
def test_tables_that_make_no_sense_are_refused_by_name(rows: Mapping[str, Any], towers: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        network_cost(with_rows(rows, towers))


def test_a_network_with_rows_of_one_tower_is_not_cut() -> None:
    with pytest.raises(ConfigurationError, match=r"aux4a \(auxiliary\), aux4d \(auxiliary\) cannot be cut"):
        load_network("googlenet", towers=2)
    assert load_network("googlenet").without_auxiliaries().cut_into(2).towers == 2


def test_dropout_that_several_layers_read_is_not_converted() -> None:
    with pytest.raises(ConfigurationError, match="m is not the only one to read dropout1"):
        dropout_scales(with_rows({"dropout1": {"kind": "dropout"}, "m": branches(a={"c": CONV})}), "inverted")
    scales = dropout_scales(load_network("googlenet"), "authors")
    assert scales == {
        "aux4a_logits.weight": pytest.approx(1 / 0.3),
        "aux4d_logits.weight": pytest.approx(1 / 0.3),
        "fc6.weight": pytest.approx(1 / 0.6),
    }


def test_what_an_auxiliary_classifier_reads_is_left_alone_by_the_next_row() -> None:
    model = randomized(with_rows({"x": auxiliary(c=CONV, l=LAST), "relu1": RELU}))
    w, (images, labels) = leaves(model), images_and_labels(model.network)
    maps = F.conv2d(images, w["conv1.weight"], w["conv1.bias"])
    aside = F.linear(F.conv2d(maps, w["x_c.weight"], w["x_c.bias"]).flatten(1), w["x_l.weight"], w["x_l.bias"])
    logits = F.linear(maps.relu().flatten(1), w["fc2.weight"], w["fc2.bias"])
    expected = F.cross_entropy(logits, labels) + 0.3 * F.cross_entropy(aside, labels)
    (loss,) = LossOnEveryTower(model)([images], [labels], 0)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    loss.backward()
    expected.backward()
    assert_same_gradients(model, w)
