"""The same network on one device, made of this library's parts: what the split has to beat to be worth anything."""

import torch
from torch import Tensor, nn

from alexnet_mp.benchmark.single import Parts, single_network
from alexnet_mp.layers.dropout import Dropout
from alexnet_mp.layers.normalisation import BatchNorm, LocalResponseNorm, SpatialNorm
from alexnet_mp.network import rows
from alexnet_mp.network.table import Network


def grouped_network(network: Network) -> nn.Sequential:
    """Images [N, channels, H, W] to logits [N, classes], with our normalisations and the authors' dropout.

    Convolutions are grouped, so nothing is cut or joined between layers. The function, parameters and their names are
    those of `stock_network`, up to dropout: there kept values are doubled, here evaluation halves.
    """
    return single_network(network, OUR_PARTS)


class DrawnDropout(nn.Module):
    """This library's dropout with a mask from torch's ambient generator: one replica, so nothing to key it by."""

    def __init__(self, row: rows.Dropout) -> None:
        super().__init__()
        self.p, self.layer = row.p, Dropout(row.p, row.inverted)

    def forward(self, inputs: Tensor) -> Tensor:
        kept = torch.rand_like(inputs) >= self.p if self.training else None
        dropped: Tensor = self.layer(inputs, kept)
        return dropped


def _lrn(row: rows.LocalResponseNorm, towers: int) -> nn.Module:
    return LocalResponseNorm(row.n, row.k, row.alpha, row.beta, row.alpha_scales, towers)


OUR_PARTS = Parts(
    lrn=_lrn,
    spatial_norm=lambda row: SpatialNorm(row.size, row.k, row.alpha, row.beta),
    batch_norm=lambda row, features, maps: BatchNorm(features, row.momentum, row.epsilon),
    dropout=DrawnDropout,
)
