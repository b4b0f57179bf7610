"""The table's network for one device, of stock PyTorch's layers: what exported weights load into."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet_mp.conversion.dropout import Convention
from alexnet_mp.layers.dropout import Dropout
from alexnet_mp.network import rows
from alexnet_mp.network.table import Network, load_network
from alexnet_mp.single_network import Parts, single_network


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

    return single_network(table, replace(STOCK_PARTS, dropout=lambda row: _dropout(row, dropout)))


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


def _lrn(row: rows.LocalResponseNorm, towers: int) -> nn.Module:
    # torch divides alpha by n; the paper's alpha multiplies the sum itself.
    alpha = row.alpha * row.n if row.alpha_scales == "sum" else row.alpha
    return TowersAsBatch(nn.LocalResponseNorm(row.n, alpha, row.beta, row.k), towers)


def _dropout(row: rows.Dropout, convention: Convention | None) -> nn.Module:
    inverted = row.inverted if convention is None else convention == "inverted"
    return nn.Dropout(row.p) if inverted else DrawnDropout(replace(row, inverted=False))


def _batch_norm(row: rows.BatchNorm, features: int, maps: bool) -> nn.Module:
    return (nn.BatchNorm2d if maps else nn.BatchNorm1d)(features, row.epsilon, row.momentum)


STOCK_PARTS = Parts(_lrn, SpatialNorm, _batch_norm, lambda row: nn.Dropout(row.p))
