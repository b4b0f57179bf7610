"""The most probable classes of images."""

import torch
from torch import Tensor

from alexnet_mp.data.preprocessing import Batch, Preprocessing
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.training.validation import log_probabilities


@torch.no_grad()
def most_probable(model: TowerModel, preprocess: Preprocessing, batch: Batch, k: int = 5) -> tuple[Tensor, Tensor]:
    """The `k` most probable classes of each of the batch's n images: (probabilities [n, k], classes [n, k]).

    Probabilities are float64, the most probable class first, of equal ones in the order of the classes; they add up to
    1 over all classes. Where an image has several views, what the softmax gives is averaged over them (paper §4.1). A
    network of fewer than `k` classes has as many columns as classes. Both lie on the CPU; the model, in evaluation mode
    meanwhile, is left in the mode in which it was. Labels are not looked at.

    Every process that holds a tower of the model calls it, with the same batch.
    """
    was_training = model.training
    model.eval()
    scores = log_probabilities([model], batch, preprocess)
    model.train(was_training)
    ordered, classes = scores.sort(dim=1, descending=True, stable=True)
    return ordered[:, :k].exp(), classes[:, :k]
