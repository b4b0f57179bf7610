"""Regrouping between towers and one device: shapes of Caffe's layout, exact round trips, and refusals."""

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from alexnet_mp import (
    ConfigurationError,
    build_model,
    from_single_device,
    load_checkpoint,
    load_network,
    to_single_device,
)
from alexnet_mp.checkpoint.convert.layout import single_device_shapes
from alexnet_mp.checkpoint.convert.single_device_file import save_single_device
from alexnet_mp.checkpoint.files import save_checkpoint
from alexnet_mp.common.presets import preset_names
from alexnet_mp.model.single_device import single_device_model
from alexnet_mp.network.table import parse_network
from tests.support.checkpoints import narrow_network, narrowed, random_weights


def test_the_papers_network_has_caffes_shapes():
    shapes = {name: tuple(t.shape) for name, t in to_single_device(build_model("paper").state_dict()).items()}
    assert {name: shape for name, shape in shapes.items() if name.endswith("weight")} == {
        "conv1.weight": (96, 3, 11, 11),
        "conv2.weight": (256, 48, 5, 5),
        "conv3.weight": (384, 256, 3, 3),
        "conv4.weight": (384, 192, 3, 3),
        "conv5.weight": (256, 192, 3, 3),
        "fc6.weight": (4096, 9216),
        "fc7.weight": (4096, 4096),
        "fc8.weight": (1000, 4096),
    }
    assert all(shapes[name.replace("weight", "bias")] == shape[:1] for name, shape in shapes.items())


def test_tower_zeros_channels_come_first():
    state = build_model("small").state_dict()
    single = to_single_device(state)
    assert torch.equal(single["conv2.weight"][:128], state["towers.0.conv2.weight"])
    assert torch.equal(single["conv3.weight"][:192, :128], state["towers.0.conv3.own_weight"])
    assert torch.equal(single["conv3.weight"][:192, 128:], state["towers.0.conv3.peer_weight"])
    assert torch.equal(single["conv3.weight"][192:, :128], state["towers.1.conv3.peer_weight"])
    assert torch.equal(single["conv3.weight"][192:, 128:], state["towers.1.conv3.own_weight"])
    assert torch.equal(single["fc8.weight"][:, 256:], state["towers.1.fc8.own_weight"])
    assert torch.equal(single["fc8.bias"], state["towers.0.fc8.bias"])


@pytest.mark.parametrize("towers", [1, 2, 4])
def test_a_round_trip_is_bit_equal(towers):
    network = load_network("small", towers)
    state = build_model(network, seed=3).state_dict()
    back = from_single_device(to_single_device(state), network)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


TWO_TOWERS = [name for name in preset_names("network") if load_network(name).towers > 1]


@pytest.mark.parametrize("preset", TWO_TOWERS)
def test_every_table_of_several_towers_makes_the_round_trip_bit_equal(preset):
    network = narrowed(preset)
    state = random_weights(network)
    single = to_single_device(state)
    assert {name: tuple(tensor.shape) for name, tensor in single.items()} == single_device_shapes(network)
    back = from_single_device(single, network)
    assert back.keys() == state.keys()
    assert [name for name, tensor in state.items() if not torch.equal(back[name], tensor)] == []


@pytest.mark.parametrize("preset", TWO_TOWERS)
def test_the_single_device_model_takes_the_regrouped_weights_and_has_the_same_logits(preset):
    network = narrowed(preset)
    network = narrowed(preset, 67) if network.image[1] > 67 else network
    state = random_weights(network)
    images = torch.randn(3, *network.image, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    towers, single = build_model(network, dtype=torch.float64).eval(), single_device_model(network).double().eval()
    towers.load_state_dict(state)
    single.load_state_dict(to_single_device(state))
    with torch.no_grad():
        expected, found = towers(images), single(images)
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert expected.abs().max() > 0.1


def test_the_single_device_model_is_of_stock_layers_and_grouped():
    layers = dict(single_device_model("small").named_children())
    assert [layers[f"conv{n}"].groups for n in range(1, 6)] == [1, 2, 1, 2, 2]
    assert {type(layers[name]) for name in ("conv1", "fc6", "relu1")} == {nn.Conv2d, nn.Linear, nn.ReLU}


def test_weights_for_inverted_dropout_fit_the_model_with_pytorchs(tmp_path):
    network = narrow_network()
    save_single_device(tmp_path / "single.safetensors", random_weights(network), network, "inverted")
    single = single_device_model(network, dropout="inverted").eval()
    single.load_state_dict(load_file(tmp_path / "single.safetensors"))
    assert type(single.dropout6) is nn.Dropout
    towers = build_model(network).eval()
    towers.load_state_dict(random_weights(network))
    images = torch.randn(3, *network.image, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(single(images), towers(images), rtol=1e-5, atol=1e-6)


def test_a_layer_that_reads_its_own_tower_is_grouped_where_it_is_fully_connected_too():
    table = narrowed("small").to_mapping()
    table["layers"]["fc7"]["reads"] = "own"
    network = parse_network(table)
    state = random_weights(network)
    single = single_device_model(network).eval()
    single.load_state_dict(to_single_device(state))
    towers = build_model(network).eval()
    towers.load_state_dict(state)
    images = torch.randn(3, *network.image, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(single(images), towers(images), rtol=1e-5, atol=1e-6)


def test_a_missing_tower_is_refused():
    state = {name: t for name, t in build_model("small").state_dict().items() if name.startswith("towers.1.")}
    with pytest.raises(ConfigurationError, match=r"tower \[0\] of 2 is missing"):
        to_single_device(state)
    state = {name: t for name, t in build_model("small").state_dict().items() if name.startswith("towers.0.")}
    with pytest.raises(ConfigurationError, match=r"tower \[1\] of 2 is missing"):
        to_single_device(state)


def test_names_of_another_form_are_refused():
    with pytest.raises(ConfigurationError, match=r"'conv1\.weight' is not a tower's tensor"):
        to_single_device({"conv1.weight": torch.zeros(1)})


def test_weights_of_another_network_are_refused_with_both_shapes():
    single = to_single_device(build_model("small").state_dict())
    single["fc6.weight"] = torch.zeros(512, 100)
    del single["conv1.bias"]
    single["fc9.bias"] = torch.zeros(3)
    with pytest.raises(ConfigurationError) as error:
        from_single_device(single, load_network("small"))
    for part in ("conv1.bias is missing", "fc9.bias is not in the network table", "[512, 100]", "[512, 256]"):
        assert part in str(error.value)


def test_a_process_may_load_its_own_tower_alone(tmp_path):
    model = build_model("small", seed=4)
    save_checkpoint(tmp_path / "whole", model.state_dict(), model.network, {}, timeout_seconds=5)
    state, description = load_checkpoint(tmp_path / "whole", towers=[1])
    assert {name.split(".")[1] for name in state} == {"1"}
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in state.items())
    assert description["network"]["name"] == "small"


def test_a_model_that_was_moved_from_where_it_was_placed_says_so():
    with pytest.raises(ConfigurationError, match="tower 0 was placed on cpu and has been moved to meta"):
        build_model("small").to("meta")(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("before", [{}, {"tanh": {"kind": "tanh"}}])
def test_a_relu_leaves_alone_what_others_need(before: dict[str, Any]) -> None:
    """The caller's images, and what the gradient of tanh is made from."""
    conv = {"kind": "conv", "kernels": 2, "size": 3, "reads": "image", "std": 0.1, "bias": 0}
    layers = {"first": {"kind": "relu"}, "conv1": conv, **before, "relu1": {"kind": "relu"}}
    classifier = {"kind": "classifier", "std": 0.1, "bias": 0}
    table = {"name": "x", "towers": 1, "image": [3, 8, 8], "classes": 4, "layers": {**layers, "fc2": classifier}}
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    given = images.clone()
    single_device_model(parse_network(table))(given).sum().backward()
    assert torch.equal(given, images)
