"""Stages: what a tower computes from one crossing to the next, before its peers' activations arrive and after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from alexnet_mp.model.layers.dropout import Dropout

Masks = Mapping[str, Tensor]  # a dropout row's full name -> True where a unit is kept, [N, units]
Logits = dict[str, Tensor]  # an auxiliary classifier's name -> its logits, [N, classes]


@dataclass(frozen=True)
class Concat:
    """Branches that all begin with the same maps; their outputs are concatenated, [N, sum of maps, H, W]."""

    branches: tuple["NamedLayers", ...]


@dataclass(frozen=True)
class AuxHead:
    """An auxiliary classifier; the activations that it reads pass on as they are."""

    layers: "NamedLayers"


NamedLayers = Sequence[tuple[str, nn.Module | Concat | AuxHead]]


def run_layers(layers: NamedLayers, activations: Tensor, masks: Masks, auxiliary: Logits | None) -> Tensor:
    """What comes out of the last layer. Without a mask, dropout rows act as in evaluation.

    Auxiliary classifiers run only if `auxiliary` is given, and leave their logits in it.
    """
    for name, layer in layers:
        match layer:
            case Concat():
                activations = torch.cat(
                    [run_layers(branch, activations, masks, None) for branch in layer.branches], dim=1
                )
            case AuxHead():
                if auxiliary is not None:
                    auxiliary[name] = run_layers(layer.layers, activations, masks, None)
            case Dropout():
                activations = layer(activations, masks.get(name))
            case _:
                activations = layer(activations)
    return activations


class StageInput(Protocol):
    """How a stage takes in what crossed: `own_half` needs only this tower, `combine` joins what the peers sent."""

    def own_half(self, own: Tensor) -> Tensor: ...

    def combine(self, partial: Tensor, peer: Tensor | None) -> Tensor: ...


@dataclass(frozen=True)
class ImageInput:
    """The input of the first stage: the image enters, nothing crosses. From here on maps have this memory format."""

    memory_format: torch.memory_format = torch.channels_last

    def own_half(self, own: Tensor) -> Tensor:
        return own.contiguous(memory_format=self.memory_format) if own.ndim == 4 else own

    def combine(self, partial: Tensor, peer: Tensor | None) -> Tensor:
        return partial


@dataclass(frozen=True)
class SumOfLogits:
    """The input of the last stage: partial logits [N, classes] of all towers are added in tower order."""

    tower: int

    def own_half(self, own: Tensor) -> Tensor:
        return own

    def combine(self, partial: Tensor, peer: Tensor | None) -> Tensor:
        if peer is None:
            return partial
        peers = list(torch.split(peer, partial.shape[1], dim=1))
        parts = [*peers[: self.tower], partial, *peers[self.tower :]]
        return sum(parts[1:], start=parts[0])


@dataclass(frozen=True)
class Stage:
    """The run of layers from one crossing to the next, in two pure parts."""

    input: StageInput
    layers: NamedLayers

    def own_half(self, own: Tensor) -> Tensor:
        """What needs only this tower; runs while the peers' half is on its way."""
        return self.input.own_half(own)

    def rest(self, partial: Tensor, peer: Tensor | None, masks: Masks, auxiliary: Logits | None = None) -> Tensor:
        """From the peers' half on, up to the next crossing; `masks` and `auxiliary` as in `run_layers`."""
        return run_layers(self.layers, self.input.combine(partial, peer), masks, auxiliary)
