"""Prepares curves for a chart: thins them out, and finds where the learning rate changed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from alexnet_mp.training.metrics import Metrics, Step

MOST_POINTS = 160  # of a curve: more than a chart has room for would only make the page large


@dataclass(frozen=True)
class Thinned:
    """A curve of at most MOST_POINTS points (x, median), with the range (x, lowest, highest) that each stands for."""

    points: tuple[tuple[float, float], ...]
    band: tuple[tuple[float, float, float], ...]
    at_each: int


@dataclass(frozen=True)
class Change:
    """From `x` on, the learning rate was another."""

    x: float
    learning_rate: float


def thinned(values: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> Thinned:
    """Neighboring values (x, y) become one point; the first and the last group may be smaller than the others."""
    size = max(1, -(-len(values) // most))
    groups = [values[start : start + size] for start in range(0, len(values), size)]
    points = tuple((fmean(x for x, _ in group), median(y for _, y in group)) for group in groups)
    band = tuple((x, min(y for _, y in g), max(y for _, y in g)) for (x, _), g in zip(points, groups, strict=True))
    return Thinned(points, band if size > 1 else (), size)


def over_epochs(metrics: Metrics, value: Callable[[Step], float | None]) -> list[tuple[float, float]]:
    """(epochs done, value) of every training line that has it; over steps if no epoch is whole yet."""
    per_epoch = metrics.steps_per_epoch or 1.0
    found = [(step.step / per_epoch, value(step)) for step in metrics.steps]
    return [(x, y) for x, y in found if y is not None]


def changes_of_rate(metrics: Metrics) -> list[Change]:
    """Where the learning rate of a training line differs from that of the line before, in epochs done."""
    known = [step for step in metrics.steps if step.learning_rate is not None]
    per_epoch = metrics.steps_per_epoch or 1.0
    return [
        # The line of a step is written after it: the rate changed when the step before had ended.
        Change(before.step / per_epoch, after.learning_rate or 0.0)
        for before, after in pairwise(known)
        if before.learning_rate != after.learning_rate
    ]
