"""A tower: the rows of a network table as layers, cut into stages at the crossings; it knows no device or rank."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from alexnet_mp.common.rng import keyed_generator
from alexnet_mp.errors import ConfigurationError
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
    Weighted,
    initialize,
    matrix_product,
)
from alexnet_mp.model.stage import AuxHead, Concat, ImageInput, Stage, StageInput, Steps, SumOfLogits
from alexnet_mp.network import rows
from alexnet_mp.network.costs import NetworkCost, RowCost, network_cost
from alexnet_mp.network.table import Network

RESERVED = ("stages",)  # besides what a tower has before its first layer


class Tower(nn.Module):
    """One tower of a network; each of its layers is a submodule with the row's full name.

    Weights are drawn by (seed, layer, tower), so a tower is the same whoever builds it and wherever it lives.
    """

    def __init__(self, network: Network, index: int, seed: int) -> None:
        super().__init__()
        self.index = index
        costs = network_cost(network)
        stages: list[tuple[StageInput, list[tuple[str, nn.Module | Concat | AuxHead]]]] = [(ImageInput(), [])]
        before: rows.Row | None = None
        for name, row in network.rows.items():
            if isinstance(row, rows.Branches):
                branches = {f"{name}_{branch}": layers for branch, layers in row.branches.items()}
                join = Concat(tuple(self._add_run(network, costs, each, branches[each], seed) for each in branches))
                stages[-1][1].append((name, join))
            elif isinstance(row, rows.Auxiliary):
                stages[-1][1].append((name, AuxHead(self._add_run(network, costs, name, row.layers, seed))))
            else:
                layer = self._add_layer(network, costs.row(name), row, before, seed)
                if isinstance(layer, TwoInputLayer):
                    stages.append((layer, []))
                else:
                    stages[-1][1].append((name, layer))
            before = row
        stages.append((SumOfLogits(index), []))
        self.stages = [Stage(head, tuple(tail)) for head, tail in stages]
        self._dropout_shapes = {
            name: (costs.row(name).output_shape, row.p)
            for name, row in network.layer_rows.items()
            if isinstance(row, rows.Dropout)
        }

    def _add_run(
        self, network: Network, costs: NetworkCost, name: str, layers: Mapping[str, rows.LayerRow], seed: int
    ) -> Steps:
        """The layers of a branch or of an auxiliary classifier; their input is not theirs alone."""
        steps: list[tuple[str, nn.Module]] = []
        before: rows.Row | None = None
        for each, row in layers.items():
            full = f"{name}_{each}"
            steps.append((full, self._add_layer(network, costs.row(full), row, before, seed)))
            before = row
        return tuple(steps)

    def _add_layer(
        self, network: Network, cost: RowCost, row: rows.LayerRow, before: rows.Row | None, seed: int
    ) -> nn.Module:
        layer = _layer(row, cost, network.towers, self.index, relu_in_place=rows.gives_new_memory(before))
        if isinstance(row, rows.WeightedRow):
            assert isinstance(layer, Weighted)
            initialize(layer, row.std, cost.fan_in, row.bias, keyed_generator(seed, "weights", cost.name, self.index))
        if cost.name in RESERVED or hasattr(self, cost.name):
            raise ConfigurationError(
                f"network {network.name}: a row cannot be called {cost.name!r}, which torch's modules use"
            )
        self.add_module(cost.name, layer)
        return layer

    def draw_masks(self, seed: int, step: int, total: int, taken: slice) -> dict[str, Tensor]:
        """The dropout masks of one step: drawn for the whole global batch of `total` images, of which `taken` are ours.

        Keyed by (seed, step, layer, tower), so they are the same under every placement and number of replicas.
        """
        masks = {}
        for name, (shape, p) in self._dropout_shapes.items():
            generator = keyed_generator(seed, "dropout", step, name, self.index)
            masks[name] = torch.rand(total, *shape, generator=generator, dtype=torch.float32, device="cpu")[taken] >= p
        return masks


def _layer(row: rows.LayerRow, cost: RowCost, towers: int, tower: int, relu_in_place: bool) -> nn.Module:
    match row:
        case rows.Conv():
            shape = (row.kernels, cost.input_shape[0], row.size, row.size)
            return _reading(row.reads, Convolution(row.stride, row.pad), shape, towers)
        case rows.Local():
            window = (cost.input_shape[0], row.size, row.size)
            return LocallyConnected((row.kernels, *window, *cost.output_shape[1:]), row.stride, row.pad)
        case rows.FullyConnected():
            return _reading(row.reads, matrix_product, (row.units, torch.Size(cost.input_shape).numel()), towers)
        case rows.Classifier():
            return PartialLogits(cost.output_shape[0], torch.Size(cost.input_shape).numel(), has_bias=tower == 0)
        case rows.LocalResponseNorm():
            return LocalResponseNorm(row.n, row.k, row.alpha, row.beta, row.alpha_scales)
        case rows.SpatialNorm():
            return SpatialNorm(row.size, row.k, row.alpha, row.beta)
        case rows.BatchNorm():
            return BatchNorm(cost.input_shape[0], row.momentum, row.epsilon)
        case rows.MaxPool():
            return MaxPool(row.size, row.stride, row.pad)
        case rows.AveragePool():
            return AveragePool(row.size, row.stride, row.pad)
        case rows.GlobalAveragePool():
            return GlobalAveragePool()
        case rows.Dropout():
            return Dropout(row.p, row.inverted)
        case rows.Relu():
            return nn.ReLU(inplace=relu_in_place)
        case rows.Tanh():
            return nn.Tanh()


def _reading(reads: rows.Reads, product: Product, shape: tuple[int, ...], towers: int) -> nn.Module:
    return TwoInputLayer(product, shape, towers - 1) if reads == "both" else OwnLayer(product, shape)
