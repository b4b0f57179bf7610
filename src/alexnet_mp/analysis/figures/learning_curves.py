"""Draws several runs' losses and errors over the same steps."""

import os
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from alexnet_mp.common.drawing import BLUE, GREEN, INK, RUST, SAND, WIDTH, drawing
from alexnet_mp.common.text import printable
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.training.curves import smoothed
from alexnet_mp.training.metrics import Metrics, read_metrics

_COLORS = (BLUE, RUST, GREEN, SAND, INK)
_MARKERS = "os^Dv"  # colors alone do not tell runs apart on gray paper


def read_curves(runs: Sequence[str]) -> dict[str, Metrics]:
    """The metrics of each run folder by its name, or by as many of the folders around it as make it another's.

    Raises ConfigurationError for one that cannot be read, that has no training step yet, or that is named twice.
    """
    folders = [Path(run).resolve() for run in runs]
    if len({*folders}) < len(folders):
        raise ConfigurationError(f"runs={','.join(runs)} names a run twice")
    above = os.path.commonpath([folder.parent for folder in folders])
    found = {printable(str(folder.relative_to(above))): read_metrics(folder / "metrics.jsonl") for folder in folders}
    for name, metrics in found.items():
        if not metrics.steps:
            raise ConfigurationError(f"{name} has no training step yet; give runs that have")
    return found


def draw_curves_of_runs(runs: Mapping[str, Metrics], picture: Path) -> None:
    """Draw a PNG: training losses over steps, smoothed, and beside them top-1 errors if a run was validated twice.

    The legend gives the last error of each.
    """
    curves_of_errors = any(len(metrics.validations) > 1 for metrics in runs.values())
    with drawing(picture, WIDTH, 3.4) as figure:
        loss, *more = figure.subplots(1, 1 + curves_of_errors, squeeze=False)[0]
        for (name, metrics), color, marker in zip(runs.items(), cycle(_COLORS), cycle(_MARKERS), strict=False):
            steps, losses = [each.step for each in metrics.steps], [each.loss for each in metrics.steps]
            at = [each.step for each in metrics.validations]
            errors = [100 * each.top1_error for each in metrics.validations]
            shown = name.replace("_", " ")  # a picture has words, and a legend leaves out what begins with "_"
            last = f", top-1 error {errors[-1]:.1f} %" if errors else ""
            loss.plot(steps, losses, color=color, lw=0.5, alpha=0.3)
            loss.plot(steps, smoothed(losses), color=color, label=shown + last)
            for axes in more:
                axes.plot(at, errors, marker + "-", color=color, clip_on=False)
        loss.set_ylabel("training cross-entropy")
        loss.legend()
        for axes in more:
            axes.set(ylabel="validation, top-1 error, %", ylim=(0, 100))
        for axes in (loss, *more):
            axes.set(xlabel="step", xlim=(0, max(each.step for metrics in runs.values() for each in metrics.steps)))
            axes.grid()
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
