"""A tower: the rows of a network table as layers, cut into stages at the crossings; it knows no device or rank."""

from collections.abc import Mapping

import torch
from torch import nn

from alexnet_mp.common.rng import keyed_generator
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.layers.kinds import LayerPlace, layer_of
from alexnet_mp.model.layers.weighted import TwoInputLayer, Weighted, initialize
from alexnet_mp.model.stage import AuxHead, Concat, ImageInput, NamedLayers, Stage, StageInput, SumOfLogits
from alexnet_mp.network import rows
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import Network

RESERVED = ("stages",)  # besides what a tower has before its first layer


class Tower(nn.Module):
    """One tower of a network; each of its layers is a submodule with the row's full name.

    Weights are drawn by (seed, layer, tower), so a tower is the same whoever builds it and wherever it lives.
    """

    def __init__(
        self, network: Network, index: int, seed: int, memory_format: torch.memory_format = torch.channels_last
    ) -> None:
        """Maps and the kernels of convolutions are in `memory_format`."""
        super().__init__()
        self.index = index
        self._network_name, self._seed = network.name, seed
        self._costs = {cost.name: cost for cost in network_cost(network).rows}
        stages: list[tuple[StageInput, list[tuple[str, nn.Module | Concat | AuxHead]]]] = [
            (ImageInput(memory_format), [])
        ]
        before: rows.Row | None = None
        for name, row in network.rows.items():
            layer = self._add_row(name, row, before)
            if isinstance(layer, TwoInputLayer):
                stages.append((layer, []))
            else:
                stages[-1][1].append((name, layer))
            before = row
        stages.append((SumOfLogits(index), []))
        self.stages = [Stage(head, tuple(tail)) for head, tail in stages]
        for kernels in (each for each in self.parameters() if each.ndim == 4):
            kernels.data = kernels.data.contiguous(memory_format=memory_format)

    def _add_row(self, name: str, row: rows.Row, before: rows.Row | None) -> nn.Module | Concat | AuxHead:
        if isinstance(row, rows.Branches):
            return Concat(tuple(self._add_rows(f"{name}_{branch}", each) for branch, each in row.branches.items()))
        if isinstance(row, rows.Auxiliary):
            return AuxHead(self._add_rows(name, row.layers))
        return self._add_layer(name, row, before)

    def _add_rows(self, name: str, layers: Mapping[str, rows.Row]) -> NamedLayers:
        """The layers of a branch or of an auxiliary classifier; their input is not theirs alone."""
        found: list[tuple[str, nn.Module]] = []
        before: rows.Row | None = None
        for each, row in layers.items():
            found.append((f"{name}_{each}", self._add_layer(f"{name}_{each}", row, before)))
            before = row
        return tuple(found)

    def _add_layer(self, name: str, row: rows.Row, before: rows.Row | None) -> nn.Module:
        cost = self._costs[name]
        # The image, and what several layers read, is not this layer's to overwrite.
        layer = layer_of(row, LayerPlace(cost, self.index, may_overwrite=bool(before and before.gives_new_memory)))
        if isinstance(layer, Weighted):
            generator = keyed_generator(self._seed, "weights", name, self.index)
            initialize(layer, row.std, cost.fan_in, row.bias, generator)  # type: ignore[attr-defined]
        if name in RESERVED or hasattr(self, name):
            raise ConfigurationError(
                f"network {self._network_name}: a row cannot be called {name!r}, which torch's modules use"
            )
        self.add_module(name, layer)
        return layer
