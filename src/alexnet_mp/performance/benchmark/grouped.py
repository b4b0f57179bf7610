"""The same network on one device, made of this library's parts: what the split has to beat to be worth anything."""

from torch import nn

from alexnet_mp.model.layers.norm import BatchNorm, LocalResponseNorm, SpatialNorm
from alexnet_mp.model.single_device import DrawnDropout, Parts, single_network
from alexnet_mp.network import rows
from alexnet_mp.network.table import Network


def grouped_network(network: Network) -> nn.Sequential:
    """Images [N, channels, H, W] to logits [N, classes], with our normalizations and the authors' dropout.

    Convolutions are grouped, so nothing is cut or joined between layers. The function, parameters and their names are
    those of `stock_network`, up to dropout: there kept values are doubled, here evaluation halves.
    """
    return single_network(network, OUR_PARTS)


def _lrn(row: rows.LocalResponseNorm, towers: int) -> nn.Module:
    return LocalResponseNorm(row.n, row.k, row.alpha, row.beta, row.alpha_scales, towers)


OUR_PARTS = Parts(
    lrn=_lrn,
    spatial_norm=lambda row: SpatialNorm(row.size, row.k, row.alpha, row.beta),
    batch_norm=lambda row, features, maps: BatchNorm(features, row.momentum, row.epsilon),
    dropout=DrawnDropout,
)
