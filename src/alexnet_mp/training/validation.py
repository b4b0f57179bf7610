"""Loss, top-1 and top-5 error of a model, or of several averaged, on a set of images."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor
from torch.nn import functional as F

from alexnet_mp.data.preprocessing import Batch, Preprocessing
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel.mesh import Mesh


@dataclass(frozen=True)
class Errors:
    """`loss` is the mean cross-entropy; errors are fractions between 0 and 1."""

    loss: float
    top1_error: float
    top5_error: float
    images: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The errors, and where they are: `confusions` int64 [classes, classes] counts images by label and prediction.

    `top5_wrong` int64 [classes] counts, for each label, the images whose label was not among the first five.
    """

    errors: Errors
    confusions: Tensor
    top5_wrong: Tensor


@torch.no_grad()
def evaluate(
    models: Sequence[TowerModel],
    batches: Iterable[Batch],
    preprocess: Preprocessing,
    mesh: Mesh,
    look: Callable[[Batch, Tensor], None] | None = None,
) -> Evaluation:
    """Run models, in evaluation mode, over this replica's batches; the result is over all replicas.

    What the softmax gives is averaged over the views of an image (paper §4.1), and over the models. `look` is shown
    each batch with its `log_probabilities`.
    """
    were_training = [model.training for model in models]
    classes = models[0].network.classes
    loss = torch.zeros((), dtype=torch.float64)
    confusions = torch.zeros(classes, classes, dtype=torch.float64)  # whole numbers; exact up to 2^53
    top5_wrong = torch.zeros(classes, dtype=torch.float64)
    for model in models:
        model.eval()
    for batch in batches:
        scores = log_probabilities(models, batch, preprocess, mesh)
        if look is not None:
            look(batch, scores)
        loss += F.nll_loss(scores, batch.labels, reduction="sum")
        predicted = scores.argmax(dim=1)  # of equal ones the first, as in `in_top`
        confusions.index_put_(
            (batch.labels, predicted), torch.ones(len(predicted), dtype=torch.float64), accumulate=True
        )
        top5_wrong.index_add_(0, batch.labels, (~in_top(scores, batch.labels, 5)).double())
    for model, was_training in zip(models, were_training, strict=True):
        model.train(was_training)
    totals = mesh.sum_over_replicas(torch.cat([loss.view(1), top5_wrong, confusions.flatten()]))
    loss_sum, top5_wrong, confusions = (
        totals[0].item(),
        totals[1 : classes + 1],
        totals[classes + 1 :].view(classes, -1),
    )
    images = int(confusions.sum())
    errors = Errors(
        loss=loss_sum / images,
        top1_error=(images - confusions.trace().item()) / images,
        top5_error=top5_wrong.sum().item() / images,
        images=images,
    )
    return Evaluation(errors, confusions.long(), top5_wrong.long())


def log_probabilities(models: Sequence[TowerModel], batch: Batch, preprocess: Preprocessing, mesh: Mesh) -> Tensor:
    """log of the softmax's mean over models and views, float64 [n, classes] on the CPU."""
    found = []
    for model in models:
        images = preprocess.on_each(batch, list(model.placement.devices.values()))
        logits = model.tower_logits(images)[0].double()  # [n * v, classes]
        mesh.await_devices()
        found += F.log_softmax(logits.cpu(), dim=1).unflatten(0, (len(batch.labels), -1)).unbind(1)
    stacked = torch.stack(found)  # [models * v, n, classes]
    return stacked[0] if len(stacked) == 1 else stacked.logsumexp(0) - log(len(stacked))


def in_top(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """True where the label is among the k largest of its row of scores [N, classes]; of equal ones the first count."""
    target = scores.gather(1, labels.unsqueeze(1))  # [N, 1]
    earlier = torch.arange(scores.shape[1], device=scores.device) < labels.unsqueeze(1)
    # Not `scores > target`: a label whose score is not a number must not count as right.
    ahead = ~(scores <= target) | ((scores == target) & earlier)
    return ahead.sum(dim=1) < k
