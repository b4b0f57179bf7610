"""A run of layers: one after another, in branches that are joined again, and aside into auxiliary classifiers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alexnet_mp.layers.dropout import Dropout

Masks = Mapping[str, Tensor]  # a dropout row's full name -> True where a unit is kept, [N, units]
Logits = dict[str, Tensor]  # an auxiliary classifier's name -> its logits, [N, classes]


@dataclass(frozen=True)
class Join:
    """Branches that all begin with the same maps; their outputs are concatenated, [N, sum of maps, H, W]."""

    branches: tuple["Steps", ...]


@dataclass(frozen=True)
class Aside:
    """An auxiliary classifier; the activations that it reads pass on as they are."""

    layers: "Steps"


Steps = Sequence[tuple[str, nn.Module | Join | Aside]]


def run(steps: Steps, activations: Tensor, masks: Masks, auxiliary: Logits | None) -> Tensor:
    """What comes out of the last step. Without a mask, dropout rows act as in evaluation.

    Auxiliary classifiers run only where `auxiliary` is given, and leave their logits in it.
    """
    for name, step in steps:
        match step:
            case Join():
                activations = torch.cat([run(branch, activations, masks, None) for branch in step.branches], dim=1)
            case Aside():
                if auxiliary is not None:
                    auxiliary[name] = run(step.layers, activations, masks, None)
            case Dropout():
                activations = step(activations, masks.get(name))
            case _:
                activations = step(activations)
    return activations
