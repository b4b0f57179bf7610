"""Makes the report's parts on training: curves of loss, error and speed, and the bytes of each crossing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Any

from markupsafe import Markup

from alexnet_mp.analysis.report.chart import Mark, Series, Style, line_chart
from alexnet_mp.analysis.report.folder import ReportedRun
from alexnet_mp.analysis.report.words import crossing_rows, listed
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.rows import RowCost
from alexnet_mp.network.table import Network
from alexnet_mp.training.metrics import EvaluationLine, Metrics, Step

MOST_POINTS = 160  # of a curve: more than a chart has room for would only make the page large
_MOST_CHANGES = 8  # of the learning rate are listed below the chart


@dataclass(frozen=True)
class Thinned:
    """A curve of at most MOST_POINTS points (x, median), with the range (x, lowest, highest) that each stands for."""

    points: tuple[tuple[float, float], ...]
    band: tuple[tuple[float, float, float], ...]
    at_each: int


@dataclass(frozen=True)
class ChartFigure:
    """A chart and what stands below it."""

    svg: Markup
    caption: str


def learning_charts(metrics: Metrics) -> list[ChartFigure]:
    """Loss over epochs, and error if there were validations, with the changes of the learning rate."""
    return [_loss_chart(metrics), *([_error_chart(metrics)] if metrics.validations else [])]


def _loss_chart(metrics: Metrics) -> ChartFigure:
    losses = _over_epochs(metrics, lambda step: step.loss)
    curve = thinned(losses)
    validations = [(float(each.epoch), each.loss) for each in metrics.validations]
    series = [
        Series("training", curve.points, "thin", band=curve.band),
        Series("validation", validations, "dots", f"{validations[-1][1]:.3g}" if validations else ""),
    ]
    known = [(name, points) for name, points in (("training", losses), ("validation", validations)) if points]
    ends = " and ".join(f"{name} {points[-1][1]:.3g}" for name, points in known)
    description = f"Cross-entropy over {_unit(metrics)}s, at the end {ends}."
    last_x = losses[-1][0] if losses else 0
    each = f" Each point of training is the median of {curve.at_each} lines, the shade their range." * bool(curve.band)
    return ChartFigure(
        line_chart(description, series, _marks(metrics), _unit(metrics), "cross-entropy", last_x, log=True),
        "Loss of the batches that were trained on, and of the images held out, on a logarithmic scale."
        + each
        + _changes_in_words(metrics),
    )


def _error_chart(metrics: Metrics) -> ChartFigure:
    def curve(name: str, style: Style, epochs: tuple[EvaluationLine, ...], key: str) -> Series:
        points = [(float(each.epoch), 100 * getattr(each, key)) for each in epochs]
        return Series(name, points, style, f"{points[-1][1]:.2f} %" if points else "")

    series = [
        curve("top-1", "dots", metrics.validations, "top1_error"),
        curve("top-5", "squares", metrics.validations, "top5_error"),
        curve("top-1, training", "diamonds", metrics.training, "top1_error"),
    ]
    ends = " and ".join(f"{each.name} {each.end}" for each in series if each.points)
    description = f"Error over epochs, at the end {ends}."
    return ChartFigure(
        line_chart(description, series, _marks(metrics), _unit(metrics), "error, %"),
        "Share of the images held out whose class is not the most probable (top-1), and not among the five most "
        "probable (top-5), after each epoch.",
    )


def speed_chart(metrics: Metrics) -> ChartFigure | None:
    """Images a second in every training line; None if no line has them."""
    speeds = _over_epochs(metrics, lambda step: step.images_per_second)
    if not speeds:
        return None
    values = sorted(speed for _, speed in speeds)
    middle, low, high = median(values), values[len(values) // 20], values[-1 - len(values) // 20]
    words = f"median {middle:,.0f}, nine tenths of the lines between {low:,.0f} and {high:,.0f}"
    curve = thinned(speeds)
    series = Series("images a second", curve.points, "thin", f"{curve.points[-1][1]:,.0f}", curve.band)
    description = f"Images a second over {_unit(metrics)}s: {words}."
    each = f" Each point is the median of {curve.at_each} lines, the shade their range." * bool(curve.band)
    chart = line_chart(description, [series], [], _unit(metrics), "images/s", speeds[-1][0])
    return ChartFigure(chart, f"Images a second in the training lines: {words}.{each}")


def _marks(metrics: Metrics) -> list[Mark]:
    return [Mark(x, f"ε {rate:g}") for x, rate in _changes_of_rate(metrics)]


def _changes_in_words(metrics: Metrics) -> str:
    changes = _changes_of_rate(metrics)
    if not changes:
        return ""
    told = [f"{rate:g} after {_unit(metrics)} {x:g}" for x, rate in changes[:_MOST_CHANGES]]
    more = f" and {len(changes) - _MOST_CHANGES} more" * (len(changes) > _MOST_CHANGES)
    return f" Dashed lines: the learning rate ε of the classifier's weights changed, to {listed(told)}{more}."


def _unit(metrics: Metrics) -> str:
    return "epoch" if metrics.steps_per_epoch else "step"


def thinned(values: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> Thinned:
    """Neighboring values (x, y) become one point; the first and the last group may be smaller than the others."""
    size = max(1, -(-len(values) // most))
    groups = [values[start : start + size] for start in range(0, len(values), size)]
    points = tuple((fmean(x for x, _ in group), median(y for _, y in group)) for group in groups)
    band = tuple((x, min(y for _, y in g), max(y for _, y in g)) for (x, _), g in zip(points, groups, strict=True))
    return Thinned(points, band if size > 1 else (), size)


def _over_epochs(metrics: Metrics, value: Callable[[Step], float | None]) -> list[tuple[float, float]]:
    """(epochs done, value) of every training line that has it; over steps if no epoch is whole yet."""
    per_epoch = metrics.steps_per_epoch or 1.0
    found = [(step.step / per_epoch, value(step)) for step in metrics.steps]
    return [(x, y) for x, y in found if y is not None]


def _changes_of_rate(metrics: Metrics) -> list[tuple[float, float]]:
    """(epochs done, new rate) of each training line whose learning rate is not that of the line before."""
    known = [step for step in metrics.steps if step.learning_rate is not None]
    per_epoch = metrics.steps_per_epoch or 1.0
    return [
        # The line of a step is written after it: the rate changed when the step before had ended.
        (before.step / per_epoch, after.learning_rate or 0.0)
        for before, after in pairwise(known)
        if before.learning_rate != after.learning_rate
    ]


def crossing_bytes(run: ReportedRun, network: Network, batch: int) -> list[dict[str, Any]]:
    """What one tower sends in a step on `batch` images, by the `layer` that reads it; nothing for one tower.

    Bytes `forward`, `backward` and of `both`; `share` is that of all crossings.
    """
    sent: list[dict[str, Any]] = []
    for row in crossing_rows(network_cost(network)):
        each = (network.towers - 1) * batch * _bytes_of_float(run, row)
        forward, backward = each * row.crossing_floats_forward, each * row.crossing_floats_backward
        sent.append({"layer": row.name, "forward": forward, "backward": backward, "both": forward + backward})
    total = sum(layer["both"] for layer in sent) or 1
    return [{**layer, "share": layer["both"] / total} for layer in sent]


def _bytes_of_float(run: ReportedRun, row: RowCost) -> int:
    """Of what crosses, in the precision of the weights or rounded; partial logits, which do not return, are not."""
    if run.configuration.get("crossing_dtype") and row.crossing_floats_backward:
        return 2
    precision = run.configuration.get("precision")
    if precision == "bf16":
        return 2
    return 8 if precision == "float64" else 4
