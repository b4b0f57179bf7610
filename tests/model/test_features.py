"""Features of any row equal an independent computation, under every placement and on one device."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from alexnet_mp import ConfigurationError, build_model, features, load_network, single_device_model, to_single_device
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.rows import Branches
from alexnet_mp.parallel.links import LocalLink
from alexnet_mp.parallel.placement import Placement
from tests.support.checkpoints import narrowed, random_weights
from tests.support.independent import Weights, lrn
from tests.support.processes import run_processes

NETWORK = narrowed("small")
IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))
STATE = random_weights(NETWORK)


def independent(x: Tensor, w: Weights, towers: int = 2) -> dict[str, Tensor]:
    """What comes out of every row of `small` in evaluation, by stock PyTorch and the formula of the LRN."""
    found: dict[str, Tensor] = {}
    for n, padding, groups in ((1, 1, 1), (2, 2, towers), (3, 1, 1), (4, 1, towers), (5, 1, towers)):
        x = found[f"conv{n}"] = F.conv2d(x, w[f"conv{n}.weight"], w[f"conv{n}.bias"], padding=padding, groups=groups)
        x = found[f"relu{n}"] = x.relu()
        if n < 3:
            x = found[f"lrn{n}"] = torch.cat([lrn(half, alpha=1e-4) for half in x.chunk(towers, dim=1)], dim=1)
        if n in (1, 2, 5):
            x = found[f"pool{n}"] = F.max_pool2d(x, 3, 2)
    x = x.flatten(1)
    for n in (6, 7):
        x = found[f"fc{n}"] = F.linear(x, w[f"fc{n}.weight"], w[f"fc{n}.bias"])
        x = found[f"relu{n}"] = x.relu()
        x = found[f"dropout{n}"] = x / 2
    found["fc8"] = F.linear(x, w["fc8.weight"], w["fc8.bias"])
    return found


EXPECTED = independent(IMAGES.double(), {n: t.double() for n, t in to_single_device(STATE).items()})


def assert_right(found: dict[str, Tensor]) -> None:
    assert list(found) == list(NETWORK.rows)
    for name, values in found.items():
        assert values.shape == EXPECTED[name].shape, name
        assert (values - EXPECTED[name]).abs().max() < 1e-6 * max(1, float(EXPECTED[name].abs().max())), name


def taken(placement: str) -> tuple[dict[str, Tensor], bool]:
    model = build_model(NETWORK, placement)
    model.load_state_dict({name: STATE[name] for name in model.state_dict()})
    model.towers[next(iter(model.towers))].eval()  # a part of it, as somebody may have frozen
    return features(model, IMAGES, list(NETWORK.rows)), model.training


def test_features_of_every_row_of_simulated_towers() -> None:
    found, is_training = taken("simulated")
    assert_right(found)
    assert is_training, "as before"


def test_features_in_every_one_of_two_processes_are_those_of_both_towers() -> None:
    for found, _ in run_processes(2, taken, "distributed"):
        assert_right(found)


def test_features_of_one_device() -> None:
    model = single_device_model(NETWORK, dropout="authors")
    model.load_state_dict(to_single_device(STATE))
    assert_right(features(model, IMAGES, list(NETWORK.rows)))


def test_features_of_two_devices_come_to_the_first() -> None:
    devices = {0: torch.device("cpu:0"), 1: torch.device("cpu:1")}
    with FakeTensorMode():
        model = TowerModel(NETWORK, Placement("two_devices", 2, devices), LocalLink(list(devices.values())), seed=0)
        found = features(model, torch.empty(3, 3, 16, 16), list(NETWORK.rows))
        assert {values.device for values in found.values()} == {devices[0]}
        assert {name: values.shape for name, values in found.items()} == {n: t.shape for n, t in EXPECTED.items()}


def test_features_leave_no_hook_and_no_graph_behind() -> None:
    model = build_model(NETWORK)
    before = features(model, IMAGES, ["conv5"])["conv5"]
    assert not before.requires_grad
    assert [module for module in model.modules() if module._forward_hooks] == []
    with pytest.raises(RuntimeError):
        features(model, torch.empty(1, 3, 4, 4), ["conv5"])
    assert model.training
    assert [module for module in model.modules() if module._forward_hooks] == []


@pytest.mark.parametrize("model", [build_model(NETWORK), single_device_model(NETWORK)], ids=["towers", "one_device"])
def test_a_row_that_there_is_not_is_named(model: torch.nn.Module) -> None:
    with pytest.raises(ConfigurationError, match=r"rows is 'conv9', not one of conv1, .*did you mean 'conv"):
        features(model, IMAGES, ["conv9"])


def test_a_row_with_branches_is_what_they_have_side_by_side() -> None:
    network = load_network("googlenet")
    row = network.rows["inception3a"]
    assert isinstance(row, Branches)
    ends = [f"inception3a_{branch}_{list(layers)[-1]}" for branch, layers in row.branches.items()]
    model = build_model(network).eval()
    images = torch.randn(1, *network.image, generator=torch.Generator().manual_seed(0))
    found = features(model, images, ["inception3a", *ends, "fc6"])
    assert found["inception3a"].shape[1] == 256  # arXiv 1409.4842, table 1
    assert torch.equal(found["inception3a"], torch.cat([found[end] for end in ends], dim=1))
    assert torch.equal(found["fc6"], model(images))
    with pytest.raises(ConfigurationError, match="rows is 'aux4a'"):
        features(model, images, ["aux4a"])
