"""A kind of row that the library does not know: registered from outside, it is parsed, described, cut and trained."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from alexnet_mp.common.schema import PositiveFloat
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.build import build_model
from alexnet_mp.model.layers.kinds import LAYERS
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.describe import describe
from alexnet_mp.network.rows import KINDS, Place, Row, RowCost, row_kind
from alexnet_mp.network.table import Network, load_network, parse_network
from alexnet_mp.training.loss import LossOnEveryTower
from alexnet_mp.training.optimizer import make_optimizer
from alexnet_mp.training.recipe import Rates, Recipe


class Slope(nn.Module):
    """max(x, slope x), one slope for each map (He et al. 2015, PReLU)."""

    def __init__(self, maps: int, start: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((maps,), start))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.where(inputs > 0, inputs, self.slope.view(-1, *[1] * (inputs.ndim - 2)) * inputs)


@pytest.fixture
def prelu():
    """The kind `prelu`, known for one test."""

    @row_kind("prelu")
    @dataclass(frozen=True)
    class Prelu(Row):
        """max(x, slope x), one slope for each map."""

        start: PositiveFloat = 0.25

        def cost(self, at: Place) -> RowCost:
            return replace(super().cost(at), parameters_of_a_tower={"slope": at.inputs[:1]})

    LAYERS[Prelu] = lambda row, at: Slope(at.cost.input_shape[0] * at.towers_together, row.start)
    yield
    del LAYERS[Prelu], KINDS["prelu"]


def small_with_prelu() -> Network:
    mapping = load_network("small").to_mapping()
    layers = {**mapping["layers"], "relu1": {"kind": "prelu"}, "relu6": {"kind": "prelu", "start": 0.1}}
    return parse_network({**mapping, "layers": layers})


def test_a_kind_from_outside_is_counted_described_and_cut(prelu) -> None:
    network, without = small_with_prelu(), load_network("small")
    conv1, fc6 = network_cost(without).row("conv1").output_shape[0], network_cost(without).row("fc6").output_shape[0]
    assert network_cost(network).parameters == network_cost(without).parameters + 2 * (conv1 + fc6)
    assert next(layer for layer in describe(network)["layers"] if layer["name"] == "relu1")["kind"] == "prelu"
    assert network_cost(network.cut_into(4)).row("relu1").parameters(0) == conv1 // 2
    assert parse_network(network.to_mapping()) == network
    with pytest.raises(ConfigurationError, match=r"relu1\.start is 0\.0, must be positive"):
        mapping = network.to_mapping()
        parse_network({**mapping, "layers": {**mapping["layers"], "relu1": {"kind": "prelu", "start": 0.0}}})


def test_a_kind_from_outside_trains_in_both_towers(prelu) -> None:
    model = build_model(small_with_prelu(), seed=3).train()
    before = {name: tensor.clone() for name, tensor in model.named_parameters() if "slope" in name}
    assert set(before) == {f"towers.{tower}.{row}.slope" for tower in (0, 1) for row in ("relu1", "relu6")}
    optimizer = make_optimizer(dict(model.towers.items()), Recipe("r", 4, 1, 0.9, Rates(0.1, 0.1), Rates(0.1, 0.1)))
    images = torch.randn(4, *model.network.image, generator=torch.Generator().manual_seed(0))
    for step in range(2):
        optimizer.zero_grad()
        torch.autograd.backward(LossOnEveryTower(model)([images] * 2, [torch.arange(4)] * 2, step))
        optimizer.step()
    after = dict(model.named_parameters())
    assert all(not torch.equal(after[name], tensor) for name, tensor in before.items())
