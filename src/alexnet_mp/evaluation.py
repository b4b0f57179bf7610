"""Loss, top-1 and top-5 error of a model on a set of images."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from alexnet_mp.crossing import to_towers
from alexnet_mp.data.images import Batch
from alexnet_mp.mesh import Mesh
from alexnet_mp.model import TowerModel


@dataclass(frozen=True)
class Errors:
    """`loss` is the mean cross-entropy; errors are fractions between 0 and 1."""

    loss: float
    top1_error: float
    top5_error: float
    images: int


@torch.no_grad()
def evaluate(model: TowerModel, batches: Iterable[Batch], mesh: Mesh) -> Errors:
    """Run the model in evaluation mode over this replica's batches; the result is over all replicas."""
    was_training = model.training
    model.eval()
    devices = list(model.placement.devices.values())
    totals = torch.zeros(4, dtype=torch.float64)
    for batch in batches:
        logits = model.tower_logits(to_towers(batch.images, devices))[0].double().cpu()
        loss = F.cross_entropy(logits, batch.labels, reduction="sum")
        wrong = [torch.sum(~in_top(logits, batch.labels, k)) for k in (1, 5)]
        totals += torch.stack([loss, *wrong, torch.tensor(len(batch.labels))])
    model.train(was_training)
    loss_sum, wrong1, wrong5, images = mesh.sum_over_replicas(totals).tolist()
    return Errors(loss_sum / images, wrong1 / images, wrong5 / images, int(images))


def in_top(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """True where the label is among the k largest of its row of logits [N, classes]; of equal ones the first count."""
    target = logits.gather(1, labels.unsqueeze(1))  # [N, 1]
    earlier = torch.arange(logits.shape[1], device=logits.device) < labels.unsqueeze(1)
    # Not `logits > target`: a label whose logit is not a number must not count as right.
    ahead = ~(logits <= target) | ((logits == target) & earlier)
    return ahead.sum(dim=1) < k
