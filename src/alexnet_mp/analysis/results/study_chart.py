"""A study as a picture: the error of every run by variant, and over epochs where few variants are compared."""

from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from alexnet_mp.analysis.results.studies import Study, StudyVariant
from alexnet_mp.common.text import printable

_MOST_CURVES = 3  # more lie upon each other
_COLORS = ("#3b75b3", "#c0392b", "#5a8f3c")
_BASELINE_COLOR = "#8a8a8a"


def draw_study_chart(study: Study, picture: Path) -> None:
    """Draw the finished runs as a PNG. Dots are runs, a bar their median; shades are the range over the seeds."""
    variants = [variant for variant in study.variants if variant.runs]
    with_curves = len(variants) <= _MOST_CURVES
    height = 1.5 + 0.42 * len(variants)
    figure = Figure(figsize=(10 if with_curves else 7.5, max(height, 4 if with_curves else 0)), layout="constrained")
    panels = figure.subplots(1, 2, squeeze=False)[0] if with_curves else [figure.subplots()]
    if with_curves:
        _draw_curves(panels[0], variants)
    _draw_last_errors(panels[-1], variants)
    figure.suptitle(f"{printable(study.name)}: top-1 error by variant and seed", parse_math=False, fontsize=11)
    figure.savefig(picture, dpi=110)


def _draw_curves(axes: Axes, variants: list[StudyVariant]) -> None:
    for variant, color in zip(variants, _COLORS, strict=False):
        runs = [{found.epoch: found.top1_error for found in run.metrics.validations} for run in variant.runs]
        epochs = sorted(set.intersection(*map(set, runs)))
        errors = [[100 * run[epoch] for run in runs] for epoch in epochs]
        axes.plot(epochs, [median(each) for each in errors], "o-", ms=3, color=color, label=printable(variant.name))
        axes.fill_between(
            epochs, [min(each) for each in errors], [max(each) for each in errors], color=color, alpha=0.2, lw=0
        )
    axes.set(xlabel="epoch", ylabel="top-1 error, %")
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)


def _draw_last_errors(axes: Axes, variants: list[StudyVariant]) -> None:
    for place, variant in enumerate(variants):
        errors = [100 * run.summary.top1_error for run in variant.runs]
        axes.plot(errors, [place] * len(errors), "o", ms=5, color=_COLORS[0], alpha=0.8)
        axes.plot([median(errors)] * 2, [place - 0.28, place + 0.28], color="#222222", lw=1.5)
    baseline = next(
        (v for v in variants if any(other.above_baseline for other in variants) and not v.above_baseline), None
    )
    if baseline:
        axes.axvline(
            median(100 * run.summary.top1_error for run in baseline.runs), color=_BASELINE_COLOR, lw=0.8, ls="--"
        )
    axes.set_yticks(range(len(variants)), [printable(variant.name) for variant in variants])
    axes.set(xlabel="top-1 error after the last epoch, %", ylim=(len(variants) - 0.5, -0.5))
    axes.grid(axis="x", alpha=0.3)
