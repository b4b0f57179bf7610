"""A table's network on one device: as an `nn.Sequential` of stock layers or ours, and as a table of one tower."""

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.layers.dropout import Dropout
from alexnet_mp.model.layers.kinds import LayerOf, LayerPlace, layer_of
from alexnet_mp.model.layers.weighted import initialize
from alexnet_mp.network import rows
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.rows import Convention
from alexnet_mp.network.table import Network, load_network

Parts = Mapping[type[rows.Row], LayerOf]  # layers that take the place of those of `LAYERS`


def single_network(network: Network, parts: Parts) -> nn.Sequential:
    """Images [N, channels, H, W] to logits [N, classes]; a layer has its row's name, with a suffix if without weights.

    Convolutions are grouped, so nothing is cut or joined between layers. Function, parameters and their names do not
    depend on `parts`, up to dropout: ours is the table's, the stock parts have PyTorch's inverted one.

    Initial values are the table's, from torch's ambient generator. Raises ConfigurationError for a table whose rows do
    not follow one another: with branches or auxiliary classifiers.
    """
    layers = nn.Sequential()
    for name in network.rows:
        for child, layer in row_layers(network, name, parts):
            layers.add_module(child, layer)
    return layers


def row_layers(network: Network, name: str, parts: Parts) -> list[tuple[str, nn.Module]]:
    """The layers of one row, each with its name."""
    row, towers = network.rows[name], network.towers
    if name not in row.within(name):
        raise ConfigurationError(
            f"network {network.name}: {name} ({row.kind}) has no place among layers that follow one another"
        )
    names = list(network.rows)
    before = network.rows[names[names.index(name) - 1]] if name != names[0] else None
    cost = network_cost(network).row(name)
    inputs = prod(cost.input_shape)
    match row:
        case rows.Conv():
            channels = cost.input_shape[0] if row.reads == "image" else towers * cost.input_shape[0]
            groups = towers if row.reads == "own" else 1
            begin, end = row.pad
            pad = [(f"{name}_pad", nn.ZeroPad2d((begin, end, begin, end)))] if begin != end else []
            inside = begin if begin == end else 0
            conv = nn.Conv2d(channels, towers * row.kernels, row.size, row.stride, inside, groups=groups)
            return [*pad, (name, _initialized(conv, row.std, row.bias))]
        case rows.FullyConnected(reads="own") if towers > 1:
            grouped = GroupedLinear(towers * inputs, towers * row.units, towers)
            return [(name, _initialized(grouped, row.std, row.bias))]
        case rows.FullyConnected() | rows.Classifier():
            units = towers * row.units if isinstance(row, rows.FullyConnected) else network.classes
            linear = nn.Linear(towers * inputs, units)
            return [(f"{name}_flatten", nn.Flatten()), (name, _initialized(linear, row.std, row.bias))]
    layer = parts.get(type(row), layer_of)(row, LayerPlace(cost, 0, bool(before and before.gives_new_memory), towers))
    if isinstance(row, rows.Local):
        initialize(layer, row.std, cost.fan_in, row.bias, torch.default_generator)  # type: ignore[arg-type]
    return [(name, layer)]


class GroupedLinear(nn.Module):
    """A linear layer in groups, which torch lacks: flattens its inputs, of which each group of units reads its share.

    `weight` is [units, inputs / groups], as of a grouped convolution over one position, which it is.
    """

    def __init__(self, inputs: int, units: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(units, inputs // groups))
        self.bias = nn.Parameter(torch.empty(units))

    def forward(self, inputs: Tensor) -> Tensor:
        column = inputs.flatten(1).unsqueeze(2)  # [N, inputs, 1]
        return F.conv1d(column, self.weight.unsqueeze(2), self.bias, groups=self.groups).squeeze(2)

    def extra_repr(self) -> str:
        return f"{self.groups} groups, weight {list(self.weight.shape)}"


@torch.no_grad()
def _initialized(layer: GroupedLinear | nn.Conv2d | nn.Linear, std: float | str, bias: float) -> nn.Module:
    if std == "he":
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    else:
        nn.init.normal_(layer.weight, std=float(std))
    assert layer.bias is not None
    nn.init.constant_(layer.bias, bias)
    return layer


def single_device_model(network: Network | str | Path, dropout: Convention | None = None) -> nn.Sequential:
    """Build a table's network without towers: images [N, channels, H, W], mean already subtracted, to logits.

    What `to_single_device` gives and what `launch/convert.py` writes loads into it with `load_state_dict`, and it then
    has the towers' logits. It is an `nn.Sequential` of `nn.Conv2d` (with groups where a layer reads its own tower),
    `nn.Linear`, `nn.ReLU` and so on, with the rows' names.

    Args:
        network: a `Network`, the name of a preset, or the path of a YAML table.
        dropout: the convention of the weights: `authors` (evaluation multiplies by 1 - p), or `inverted`, PyTorch's, as
            `launch/convert.py dropout=...` was told. None: as the table's rows say, which fits `to_single_device`.

    Returns:
        A module in training mode, with initial values of the table's distributions from torch's ambient generator,
        which draws its dropout masks too.

    About the LRN: most single-device copies call `nn.LocalResponseNorm` on the channels of all towers at once, which
    mixes the towers at their boundary (channels 47 and 48 of conv1, 127 and 128 of conv2 in the paper's network), so
    they are another network. Here the towers are folded into the batch: a view, no copy, and right for every tower.
    """
    table = network if isinstance(network, Network) else load_network(network)
    return single_network(table, {**STOCK_PARTS, rows.Dropout: lambda row, at: _dropout(row, dropout)})


class DrawnDropout(nn.Module):
    """A row's dropout with a mask from torch's ambient generator: one replica, so nothing to key it by."""

    def __init__(self, row: rows.Dropout) -> None:
        super().__init__()
        self.p, self.layer = row.p, Dropout(row.p, row.inverted)

    def forward(self, inputs: Tensor) -> Tensor:
        kept = torch.rand_like(inputs) >= self.p if self.training else None
        dropped: Tensor = self.layer(inputs, kept)
        return dropped


class TowersAsBatch(nn.Module):
    """Apply a layer to every tower's maps by themselves: [N, towers * C, H, W] is viewed as [N * towers, C, H, W]."""

    def __init__(self, layer: nn.Module, towers: int) -> None:
        super().__init__()
        self.layer, self.towers = layer, towers

    def forward(self, maps: Tensor) -> Tensor:
        folded = maps.unflatten(1, (self.towers, -1)).flatten(0, 1)  # [N * towers, C, H, W]
        normalized: Tensor = self.layer(folded)
        return normalized.view(maps.shape)


class StockSpatialNorm(nn.Module):
    """a / (k + (alpha/size²) Σ a²)^beta over a window of the same map, which torch has no layer for."""

    def __init__(self, row: rows.SpatialNorm) -> None:
        super().__init__()
        self.row = row

    def forward(self, maps: Tensor) -> Tensor:
        mean = F.avg_pool2d(maps.square(), self.row.size, stride=1, padding=self.row.size // 2)
        return maps / mean.mul(self.row.alpha).add(self.row.k).pow(self.row.beta)


def _dropout(row: rows.Dropout, convention: Convention | None) -> nn.Module:
    inverted = row.inverted if convention is None else convention == "inverted"
    return nn.Dropout(row.p) if inverted else DrawnDropout(replace(row, inverted=False))


def _stock_lrn(row: rows.LocalResponseNorm, at: LayerPlace) -> nn.Module:
    # torch divides alpha by n; the paper's alpha multiplies the sum itself.
    alpha = row.alpha * row.n if row.alpha_scales == "sum" else row.alpha
    return TowersAsBatch(nn.LocalResponseNorm(row.n, alpha, row.beta, row.k), at.towers_together)


def _stock_batch_norm(row: rows.BatchNorm, at: LayerPlace) -> nn.Module:
    of_maps = len(at.cost.input_shape) == 3
    return (nn.BatchNorm2d if of_maps else nn.BatchNorm1d)(at.maps, row.epsilon, row.momentum)


STOCK_PARTS: Parts = {
    rows.LocalResponseNorm: _stock_lrn,
    rows.SpatialNorm: lambda row, at: StockSpatialNorm(row),
    rows.BatchNorm: _stock_batch_norm,
    rows.Dropout: lambda row, at: nn.Dropout(row.p),
}
OUR_PARTS: Parts = {rows.Dropout: lambda row, at: DrawnDropout(row)}


def ungrouped_network(network: Network) -> Network:
    """The table's kernels and units in one tower, every layer reading all maps; of `paper` the preset `ungrouped`."""
    whole = network.cut_into(1)
    return replace(whole, name="ungrouped", rows={name: _reading_own(row) for name, row in whole.rows.items()})


def one_column_network(network: Network) -> Network:
    """The paper's one-GPU network: half the kernels, but those of the last convolution and the units not halved (§3.2).

    An odd number of kernels is halved downwards. Of `paper` it is the preset `one_column`.
    """
    whole = ungrouped_network(network)
    halved = [name for name, row in whole.rows.items() if isinstance(row, rows.Conv)][:-1]
    narrow = {
        name: replace(row, kernels=max(1, row.kernels // 2)) if isinstance(row, rows.Conv) and name in halved else row
        for name, row in whole.rows.items()
    }
    return replace(whole, name="one_column", rows=narrow)


def _reading_own(row: rows.Row) -> rows.Row:
    if isinstance(row, rows.Conv | rows.FullyConnected) and row.reads == "both":
        return replace(row, reads="own")
    return row
