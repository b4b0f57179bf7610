"""A tower: the rows of a network table as layers, cut into stages at the crossings; it knows no device or rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from alexnet_mp.layers.dropout import Dropout
from alexnet_mp.layers.normalisation import BatchNorm, LocalResponseNorm, SpatialNorm
from alexnet_mp.layers.pooling import AveragePool, MaxPool
from alexnet_mp.layers.weighted import (
    Convolution,
    OwnLayer,
    PartialLogits,
    Product,
    TwoInputLayer,
    Weighted,
    initialise,
    matrix_product,
)
from alexnet_mp.network import rows
from alexnet_mp.network.costs import RowCost, network_cost
from alexnet_mp.network.table import Network
from alexnet_mp.randomness import keyed_generator

Masks = Mapping[str, Tensor]  # a dropout row's name -> True where a unit is kept, [N, units]


class Head(Protocol):
    """How a stage takes in what crossed: `own_half` needs only this tower, `add_peer` joins what the peers sent."""

    def own_half(self, own: Tensor) -> Tensor: ...

    def add_peer(self, partial: Tensor, peer: Tensor | None) -> Tensor: ...


class Entrance:
    """The head of the first stage: the image enters, nothing crosses.

    From here on maps are in channels_last, in which convolution, pooling and LRN are all faster than in the contiguous
    format (docs/performance.md).
    """

    def own_half(self, own: Tensor) -> Tensor:
        return own.contiguous(memory_format=torch.channels_last) if own.ndim == 4 else own

    def add_peer(self, partial: Tensor, peer: Tensor | None) -> Tensor:
        return partial


@dataclass(frozen=True)
class SumOfLogits:
    """The head of the last stage: partial logits [N, classes] of all towers are added in tower order."""

    tower: int

    def own_half(self, own: Tensor) -> Tensor:
        return own

    def add_peer(self, partial: Tensor, peer: Tensor | None) -> Tensor:
        if peer is None:
            return partial
        peers = list(torch.split(peer, partial.shape[1], dim=1))
        parts = [*peers[: self.tower], partial, *peers[self.tower :]]
        return sum(parts[1:], start=parts[0])


@dataclass(frozen=True)
class CrossingPoint:
    """Where a stage begins: the row whose input crosses, and whether gradients come back."""

    name: str
    has_backward: bool


def crossing_points(network: Network) -> list[CrossingPoint | None]:
    """One entry a stage: None for the first, which reads the image, and for all stages of a network of one tower."""
    found: list[CrossingPoint | None] = [None]
    for name, row in network.rows.items():
        if isinstance(row, rows.SummedFullyConnected):
            found.append(CrossingPoint(name, has_backward=False))
        elif rows.reads_of(row) == "both":
            found.append(CrossingPoint(name, has_backward=True))
    return found if network.towers > 1 else [None] * len(found)


@dataclass(frozen=True)
class Stage:
    """The run of layers from one crossing to the next, in two pure parts."""

    head: Head
    tail: Sequence[tuple[str, nn.Module]]

    def own_half(self, own: Tensor) -> Tensor:
        """What needs only this tower; runs while the peers' half is on its way."""
        return self.head.own_half(own)

    def rest(self, partial: Tensor, peer: Tensor | None, masks: Masks) -> Tensor:
        """From the peers' half on, up to the next crossing. Without a mask, dropout rows act as in evaluation."""
        activations = self.head.add_peer(partial, peer)
        for name, layer in self.tail:
            activations = layer(activations, masks.get(name)) if isinstance(layer, Dropout) else layer(activations)
        return activations


class Tower(nn.Module):
    """One tower of a network; each of its layers is a submodule with the row's name.

    Weights are drawn by (seed, layer, tower), so a tower is the same whoever builds it and wherever it lives.
    """

    def __init__(self, network: Network, index: int, seed: int) -> None:
        super().__init__()
        self.index = index
        costs = network_cost(network)
        stages: list[tuple[Head, list[tuple[str, nn.Module]]]] = [(Entrance(), [])]
        owns_its_output = (
            False  # whether the layer before gives new memory that no gradient needs; the image is not ours
        )
        for name, row in network.rows.items():
            layer = _layer(row, costs.row(name), network.towers, index, relu_in_place=owns_its_output)
            owns_its_output = not isinstance(row, rows.Relu | rows.Tanh | rows.Dropout)
            if isinstance(row, rows.WeightedRow):
                assert isinstance(layer, Weighted)
                initialise(
                    layer, row.std, costs.row(name).fan_in, row.bias, keyed_generator(seed, "weights", name, index)
                )
            self.add_module(name, layer)
            if isinstance(layer, TwoInputLayer):
                stages.append((layer, []))
            else:
                stages[-1][1].append((name, layer))
        stages.append((SumOfLogits(index), []))
        self.stages = [Stage(head, tuple(tail)) for head, tail in stages]
        self._dropout_shapes = {
            cost.name: (cost.output_shape, row.p)
            for cost, row in zip(costs.rows, network.rows.values(), strict=True)
            if isinstance(row, rows.Dropout)
        }

    def draw_masks(self, seed: int, step: int, total: int, taken: slice) -> dict[str, Tensor]:
        """The dropout masks of one step: drawn for the whole global batch of `total` images, of which `taken` are ours.

        Keyed by (seed, step, layer, tower), so they are the same under every placement and number of replicas.
        """
        masks = {}
        for name, (shape, p) in self._dropout_shapes.items():
            generator = keyed_generator(seed, "dropout", step, name, self.index)
            masks[name] = torch.rand(total, *shape, generator=generator, dtype=torch.float32, device="cpu")[taken] >= p
        return masks


def _layer(row: rows.Row, cost: RowCost, towers: int, tower: int, relu_in_place: bool) -> nn.Module:
    match row:
        case rows.Conv():
            shape = (row.kernels, cost.input_shape[0], row.size, row.size)
            return _reading(row.reads, Convolution(row.stride, row.pad), shape, towers)
        case rows.FullyConnected():
            return _reading(row.reads, matrix_product, (row.units, torch.Size(cost.input_shape).numel()), towers)
        case rows.SummedFullyConnected():
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
        case rows.Dropout():
            return Dropout(row.p, row.inverted)
        case rows.Relu():
            return nn.ReLU(inplace=relu_in_place)
        case rows.Tanh():
            return nn.Tanh()


def _reading(reads: rows.Reads, product: Product, shape: tuple[int, ...], towers: int) -> nn.Module:
    return TwoInputLayer(product, shape, towers - 1) if reads == "both" else OwnLayer(product, shape)
