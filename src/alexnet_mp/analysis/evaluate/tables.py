"""The tables of an evaluation: the errors of every class, and what was taken for what."""

from collections.abc import Sequence
from dataclasses import dataclass

from alexnet_mp.training.validation import Evaluation

LARGEST_MATRIX = 20  # classes whose confusions can be read as a matrix


@dataclass(frozen=True)
class ClassErrors:
    """One class: how many images carry its label, and the fractions of them that went wrong; None without images."""

    name: str
    images: int
    top1_error: float | None
    top5_error: float | None


@dataclass(frozen=True)
class Confusion:
    """`count` images of class `label` were taken for `predicted`: `fraction` of the label's images."""

    label: str
    predicted: str
    count: int
    fraction: float


def class_errors(evaluation: Evaluation, names: Sequence[str]) -> list[ClassErrors]:
    """The errors of every class, in the order of the classes."""
    images = evaluation.confusions.sum(dim=1).tolist()
    right = evaluation.confusions.diagonal().tolist()
    top5_wrong = evaluation.top5_wrong.tolist()
    return [
        ClassErrors(name, n, (n - right[label]) / n if n else None, top5_wrong[label] / n if n else None)
        for label, (name, n) in enumerate(zip(names, images, strict=True))
    ]


def most_confused(evaluation: Evaluation, names: Sequence[str]) -> list[Confusion]:
    """Every pair of classes that was confused, the most images first; of equal ones in the order of the classes."""
    wrong = evaluation.confusions.clone().fill_diagonal_(0)
    images = evaluation.confusions.sum(dim=1).tolist()
    pairs = [(int(wrong[label, predicted]), label, predicted) for label, predicted in wrong.nonzero().tolist()]
    return [
        Confusion(names[label], names[predicted], count, count / images[label])
        for count, label, predicted in sorted(pairs, key=lambda pair: -pair[0])
    ]
