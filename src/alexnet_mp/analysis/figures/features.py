"""What the last hidden layer makes of images, and the images nearest by it (the paper's Figure 4, right)."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from alexnet_mp.data.preprocessing import Batch, Preprocessing
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.tower_model import TowerModel


@torch.no_grad()
def last_hidden_features(model: TowerModel, preprocess: Preprocessing, batch: Batch) -> Tensor:
    """What enters the classifier, [n, units of all towers] in tower order, in evaluation mode, on the CPU.

    Of the paper's network these are the 4096 of fc7 (paper §6), which dropout that is not inverted has halved: all of
    them alike, so the nearest are the same. `batch` has one view of each image.

    Raises ConfigurationError if this process holds only some of the towers.
    """
    towers = model.local_towers()
    if len(towers) != model.network.towers:
        raise ConfigurationError("features need all towers in one process: use placement=simulated")
    classifier = next(reversed(model.network.rows))  # as the table's check has it
    seen: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[module] = inputs[0].flatten(1).cpu()

    modules = [tower.get_submodule(classifier) for tower in towers]
    was_training = model.training
    model.eval()
    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_pre_hook(note).remove)
        model.tower_logits(preprocess.on_each(batch, list(model.placement.devices.values())))
    model.train(was_training)
    return torch.cat([seen[module] for module in modules], dim=1)


def nearest(
    queries: Tensor, batches: Iterable[Batch], features: Callable[[Batch], Tensor], count: int
) -> tuple[Tensor, Tensor]:
    """The `count` images of `batches` nearest to each query [q, d] by the Euclidean distance of their `features`.

    (distances [q, count], places [q, count]), the nearest first, of equal ones the earlier; places count images from 0
    in the order in which they come. Only one batch's features are held at a time.
    """
    best = torch.empty(len(queries), 0, dtype=queries.dtype)
    places = torch.empty(len(queries), 0, dtype=torch.int64)
    start = 0
    for batch in batches:
        found = features(batch)
        # By differences: the expansion into a product loses what tells near neighbors apart.
        distances = torch.cdist(queries, found, compute_mode="donot_use_mm_for_euclid_dist")
        here = torch.arange(start, start + len(found)).expand(len(queries), -1)
        start += len(found)
        best, order = torch.cat([best, distances], dim=1).sort(dim=1, stable=True)
        places = torch.cat([places, here], dim=1).gather(1, order)[:, :count]
        best = best[:, :count]
    return best, places
