"""Finds the first layer whose weights or activations are not finite."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from alexnet_mp.model.layers.weighted import TwoInputLayer
from alexnet_mp.model.tower import Tower
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel.mesh import Mesh

_NOWHERE = (inf, -1)


@torch.no_grad()
def first_nonfinite(model: TowerModel, mesh: Mesh, images: Sequence[Tensor], step: int) -> str:
    """In words, the first layer with values that are not finite: of its weights, or else in the forward pass of `step`.

    `images` are a training batch on each local tower's device. Every process calls it, and all learn the same: the
    layer nearest to the images, over all towers and replicas.
    """
    layers = list(model.network.layer_rows)
    found: set[tuple[int, str]] = set()
    hooks = [hook for tower in model.local_towers() for hook in _watch(tower, layers, found)]
    model.tower_logits(images, step, auxiliary={})
    for hook in hooks:
        hook.remove()
    # Of weights alone: running statistics that are not finite come of activations.
    spoilt = _not_finite(model, nn.Module.parameters)
    of_weights, of_activations = (
        min(((float(layers.index(layer)), tower) for tower, layer in places), default=_NOWHERE)
        for places in (spoilt, found)
    )
    everyone = mesh.gather([*of_weights, *of_activations])
    for kind, place in (("weights", 0), ("activations", 2)):
        index, tower, rank = min((*each[place : place + 2], rank) for rank, each in enumerate(everyone))
        if index != inf:
            return (
                f"{kind} of {layers[int(index)]} in tower {int(tower)} (rank {rank}) are the first that are not finite"
            )
    return "all weights and activations are finite, the loss itself is not"


def nonfinite_state(model: TowerModel) -> list[tuple[int, str]]:
    """The (tower, layer) of this process's towers whose weights, or running statistics, are not all finite.

    Of activations that are too large, a batch normalization leaves finite ones, and running statistics that are not.
    """
    return _not_finite(model, lambda layer: layer.state_dict().values())


def _not_finite(model: TowerModel, tensors_of: Callable[[nn.Module], Iterable[Tensor]]) -> list[tuple[int, str]]:
    return [
        (tower.index, layer)
        for tower in model.local_towers()
        for layer, module in tower.named_children()
        if any(not _is_finite(tensor) for tensor in tensors_of(module))
    ]


def _watch(tower: Tower, layers: Sequence[str], found: set[tuple[int, str]]) -> list[Any]:
    """Hooks that add to `found` every (tower, layer) whose output is not finite.

    A layer that reads both towers is called in two parts, which no hook sees; its output is what the next one reads.
    """
    modules = dict(tower.named_children())
    names = {module: name for name, module in modules.items()}

    def after(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not _is_finite(output):
            found.add((tower.index, names[module]))

    def before(module: nn.Module, inputs: tuple[Tensor | None, ...]) -> None:
        previous = layers[layers.index(names[module]) - 1]
        if inputs[0] is not None and not _is_finite(inputs[0]):
            found.add((tower.index, previous))

    hooks: list[Any] = [module.register_forward_hook(after) for module in modules.values()]
    for name, following in pairwise(layers):
        if isinstance(modules[name], TwoInputLayer):
            hooks.append(modules[following].register_forward_pre_hook(before))
    return hooks


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())  # one pass, and no memory
