"""Which layer each kind of row becomes: the one table from rows to modules."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from alexnet_mp.model.layers.dropout import Dropout
from alexnet_mp.model.layers.norm import BatchNorm, LocalResponseNorm, SpatialNorm
from alexnet_mp.model.layers.pooling import AveragePool, GlobalAveragePool, MaxPool
from alexnet_mp.model.layers.weighted import (
    Convolution,
    LocallyConnected,
    OwnLayer,
    PartialLogits,
    Product,
    TwoInputLayer,
    matrix_product,
)
from alexnet_mp.network.rows import Row, RowCost, plain, weighted


@dataclass(frozen=True)
class LayerPlace:
    """What a layer knows of its row's place: its cost, whose layer it is, and whether it may overwrite its input.

    `towers_together`: on a single device, the maps of so many towers come one after another, and each tower's are
    treated by themselves.
    """

    cost: RowCost
    tower: int
    may_overwrite: bool
    towers_together: int = 1

    @property
    def maps(self) -> int:
        """The maps, or units, that come in, of all towers that are together."""
        return self.towers_together * self.cost.input_shape[0]


LayerOf = Callable[[Any, LayerPlace], nn.Module]

LAYERS: dict[type[Row], LayerOf] = {
    weighted.Conv: lambda row, at: _product_layer(Convolution(row.stride, row.pad), at.cost),
    weighted.Local: lambda row, at: LocallyConnected(at.cost.parameters_of_a_tower["weight"], row.stride, row.pad),
    weighted.FullyConnected: lambda row, at: _product_layer(matrix_product, at.cost),
    weighted.Classifier: lambda row, at: PartialLogits(at.cost.parameters_of_a_tower["own_weight"], at.tower == 0),
    plain.Relu: lambda row, at: nn.ReLU(inplace=at.may_overwrite),
    plain.Tanh: lambda row, at: nn.Tanh(),
    plain.LocalResponseNorm: lambda row, at: LocalResponseNorm(
        row.n, row.k, row.alpha, row.beta, row.alpha_scales, at.towers_together
    ),
    plain.SpatialNorm: lambda row, at: SpatialNorm(row.size, row.k, row.alpha, row.beta),
    plain.BatchNorm: lambda row, at: BatchNorm(at.maps, row.momentum, row.epsilon),
    plain.GroupNorm: lambda row, at: nn.GroupNorm(row.groups * at.towers_together, at.maps, row.epsilon),
    plain.MaxPool: lambda row, at: MaxPool(row.size, row.stride, row.pad),
    plain.AveragePool: lambda row, at: AveragePool(row.size, row.stride, row.pad),
    plain.GlobalAveragePool: lambda row, at: GlobalAveragePool(),
    plain.Dropout: lambda row, at: Dropout(row.p, row.inverted),
}


def layer_of(row: Row, at: LayerPlace) -> nn.Module:
    """The layer of a row; its parameters have the names and shapes of the row's cost, their values are not drawn."""
    return LAYERS[type(row)](row, at)


def _product_layer(product: Product, cost: RowCost) -> nn.Module:
    shapes = cost.parameters_of_a_tower
    if cost.reads == "both":
        return TwoInputLayer(product, shapes["own_weight"], shapes.get("peer_weight"))
    return OwnLayer(product, shapes["weight"])
