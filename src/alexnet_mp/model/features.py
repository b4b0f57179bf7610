"""Takes the activations of any row of a network: of towers under every placement, and of a network on one device."""

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain

import torch
from torch import Tensor, nn

from alexnet_mp.common.schema import choice
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.rows import Auxiliary, Branches
from alexnet_mp.parallel.links import peers_of


@torch.no_grad()
def features(model: TowerModel | nn.Sequential, images: Tensor, rows: Sequence[str]) -> dict[str, Tensor]:
    """The activations of some rows of a network for images, in evaluation mode.

    Args:
        model: what `build_model` or `single_device_model` gave. It is left in the mode in which it was. If its towers
            are in several processes, each of them calls this with the same images and rows, and gets all towers'.
        images: [N, channels, height, width], mean already subtracted, scaled as in training.
        rows: names of rows of the table, `conv5` or `dropout7`; of a row with branches also those in them,
            `inception3a_1x1_conv`. The activations are what comes out of the row itself: of `conv5` before its ReLU.

    Returns:
        By name, in the order of `rows`: [N, maps of all towers, height, width], or [N, units of all towers], tower 0's
        first, which is the order of a network on one device; of the classifier the logits [N, classes]. They are copies
        in the dtype of the weights, on the device of this process's first tower.

    Raises:
        ConfigurationError (a ValueError): the network has no such row. Auxiliary classifiers have none in evaluation.
    """
    holders = model.local_towers() if isinstance(model, TowerModel) else [model]
    ends = {name: _last_layers(model, name) for name in rows}
    seen: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[module] = output.clone()  # the layer after it may work in place

    was_training = model.training
    model.eval()
    try:
        with ExitStack() as hooks:
            for layer in (holder.get_submodule(end) for holder in holders for end in chain(*ends.values())):
                hooks.callback(layer.register_forward_hook(note).remove)
            logits: Tensor = model(images)
    finally:
        model.train(was_training)
    found = {}
    for name, layers in ends.items():
        mine = [torch.cat([seen[holder.get_submodule(layer)] for layer in layers], dim=1) for holder in holders]
        is_logits = isinstance(model, TowerModel) and name == next(reversed(model.network.rows))
        found[name] = logits if is_logits else _of_all_towers(model, name, mine)
    return found


def _last_layers(model: TowerModel | nn.Sequential, name: str) -> list[str]:
    """The layers of a tower whose outputs, one behind another, are those of a row."""
    if not isinstance(model, TowerModel):
        return [choice(name, dict(model.named_children()), "rows")]
    table = {each: row for each, row in model.network.rows.items() if not isinstance(row, Auxiliary)}
    inside = {full for each, row in table.items() for full in row.within(each)}
    row = table.get(choice(name, [*table, *sorted(inside - table.keys())], "rows"))
    if isinstance(row, Branches):
        return [f"{name}_{branch}_{list(layers)[-1]}" for branch, layers in row.branches.items()]
    return [name]


def _of_all_towers(model: TowerModel | nn.Sequential, name: str, mine: list[Tensor]) -> Tensor:
    """The activations of this process's towers and of its peers', in tower order, on the first one's device."""
    if isinstance(model, TowerModel) and model.link is not None and len(mine) < model.network.towers:
        (tower,) = model.placement.devices
        peers = peers_of(tower, model.network.towers)
        (theirs,) = model.link.post([mine * len(peers)], f"features of {name}", "forward")()
        mine = [*theirs[:tower], *mine, *theirs[tower:]]
    return torch.cat([each.to(mine[0].device) for each in mine], dim=1)
