"""The same network in stock PyTorch on one device: the baseline, written without this library's layers."""

from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet_mp.network import rows
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import Network


def stock_network(network: Network) -> nn.Sequential:
    """Build the table's network as a PyTorch user would: images [N, channels, H, W] to logits [N, classes].

    Tower 0's channels come first, and parameters have the names and shapes of Caffe's two-group AlexNet. What reads
    its own tower is a convolution with `groups=towers`, what reads both is an ordinary one; ReLUs work in place and
    dropout is inverted, as torchvision has them. Initial values are the table's, from torch's ambient generator.

    About the LRN: most single-device copies call `nn.LocalResponseNorm` on the channels of all towers at once, which
    mixes the towers at their boundary (channels 47 and 48 of conv1, 127 and 128 of conv2 in the paper's network), so
    they are another network. Cutting the maps into one chunk a tower is right, but copies every map to cut and to
    join, and would hold the baseline back. Here the towers are folded into the batch instead: a view, no copy, right
    for every tower, and as fast as the call on all channels.
    """
    costs = network_cost(network)
    layers = nn.Sequential()
    for name, row in network.rows.items():
        for suffix, layer in _stock_layers(row, costs.row(name).input_shape, network):
            layers.add_module(name + suffix, layer)
    return layers


class TowersAsBatch(nn.Module):
    """Apply a layer to every tower's maps by themselves: [N, towers * C, H, W] is viewed as [N * towers, C, H, W]."""

    def __init__(self, layer: nn.Module, towers: int) -> None:
        super().__init__()
        self.layer, self.towers = layer, towers

    def forward(self, maps: Tensor) -> Tensor:
        folded = maps.unflatten(1, (self.towers, -1)).flatten(0, 1)  # [N * towers, C, H, W]
        normalised: Tensor = self.layer(folded)
        return normalised.view(maps.shape)


class SpatialNorm(nn.Module):
    """a / (k + (alpha/size²) Σ a²)^beta over a window of the same map, which torch has no layer for."""

    def __init__(self, row: rows.SpatialNorm) -> None:
        super().__init__()
        self.row = row

    def forward(self, maps: Tensor) -> Tensor:
        mean = F.avg_pool2d(maps.square(), self.row.size, stride=1, padding=self.row.size // 2)
        return maps / mean.mul(self.row.alpha).add(self.row.k).pow(self.row.beta)


def _stock_layers(row: rows.Row, inputs: tuple[int, ...], network: Network) -> list[tuple[str, nn.Module]]:
    """The layers of one row, each with what its name has after the row's; `inputs` is the input of one tower."""
    towers = network.towers
    match row:
        case rows.Conv():
            channels = inputs[0] if row.reads == "image" else towers * inputs[0]
            groups = towers if row.reads == "own" else 1
            begin, end = row.pad
            pad = [("_pad", nn.ZeroPad2d((begin, end, begin, end)))] if begin != end else []
            inside = begin if begin == end else 0
            conv = nn.Conv2d(channels, towers * row.kernels, row.size, row.stride, inside, groups=groups)
            return [*pad, ("", _initialised(conv, row))]
        case rows.FullyConnected(reads="own") if towers > 1:
            # torch has no grouped linear layer; a grouped convolution over one position is one.
            grouped = nn.Conv1d(towers * prod(inputs), towers * row.units, 1, groups=towers)
            around = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (-1, 1)))
            return [("_column", around), ("", _initialised(grouped, row)), ("_flatten", nn.Flatten())]
        case rows.FullyConnected() | rows.SummedFullyConnected():
            units = towers * row.units if isinstance(row, rows.FullyConnected) else network.classes
            linear = nn.Linear(towers * prod(inputs), units)
            return [("_flatten", nn.Flatten()), ("", _initialised(linear, row))]
        case rows.Relu():
            return [("", nn.ReLU(inplace=True))]
        case rows.LocalResponseNorm():
            # torch divides alpha by n; the paper's alpha multiplies the sum itself.
            alpha = row.alpha * row.n if row.alpha_scales == "sum" else row.alpha
            return [("", TowersAsBatch(nn.LocalResponseNorm(row.n, alpha, row.beta, row.k), towers))]
        case rows.SpatialNorm():
            return [("", SpatialNorm(row))]
        case rows.BatchNorm():
            kind = nn.BatchNorm2d if len(inputs) == 3 else nn.BatchNorm1d
            return [("", kind(towers * inputs[0], row.epsilon, row.momentum))]
        case rows.MaxPool():
            return [("", nn.MaxPool2d(row.size, row.stride))]
        case rows.Dropout():
            return [("", nn.Dropout(row.p))]


@torch.no_grad()
def _initialised(layer: nn.Conv1d | nn.Conv2d | nn.Linear, row: rows.WeightedRow) -> nn.Module:
    if row.std == "he":
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    else:
        nn.init.normal_(layer.weight, std=float(row.std))
    assert layer.bias is not None
    nn.init.constant_(layer.bias, row.bias)
    return layer
