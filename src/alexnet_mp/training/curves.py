"""Draws a run's learning curves."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from alexnet_mp.common.drawing import BLUE, RUST, WIDTH, drawing
from alexnet_mp.common.text import count
from alexnet_mp.training.metrics import Metrics

_WINDOWS = 50  # as many stretches of a run are averaged: short enough to show a fall of the learning rate


def smoothed(values: Sequence[float]) -> NDArray[np.float64]:
    """Means over a fiftieth of the values around each, over fewer at both ends."""
    around = np.ones(2 * (len(values) // (2 * _WINDOWS)) + 1)
    return np.convolve(values, around, "same") / np.convolve(np.ones(len(values)), around, "same")


def draw_learning_curves(metrics: Metrics, picture: Path, title: str) -> None:
    """Draw loss and error over epochs as a PNG, training in blue; `metrics` has a validation."""
    found, last = metrics.validations, metrics.validations[-1]
    at = [each.step * last.epoch / last.step for each in metrics.steps]
    losses = [each.loss for each in metrics.steps]
    said = f"{title.replace('_', ' ')}: top-1 error {100 * last.top1_error:.2f} % after {count(last.epoch, 'epoch')}"
    errors = (
        ("top-1", found, "o-", RUST),
        ("top-5", found, "s:", RUST),
        ("top-1, training", metrics.training, "o-", BLUE),
    )
    with drawing(picture, WIDTH, 3.4, said) as figure:
        left, right = figure.subplots(1, 2)
        if losses:
            left.plot(at, losses, color=BLUE, lw=0.5, alpha=0.4)
            left.plot(at, smoothed(losses), color=BLUE, label="training" + ", smoothed" * (len(losses) >= 2 * _WINDOWS))
        epochs, their_losses = [each.epoch for each in found], [each.loss for each in found]
        left.plot(epochs, their_losses, "o-", color=RUST, label="validation", clip_on=False)
        left.set(xlabel="epoch", ylabel="cross-entropy", yscale="log")
        ticks = LogLocator(subs=(1, 2, 5))
        left.yaxis.set(major_locator=ticks, major_formatter="{x:g}", minor_formatter=NullFormatter())
        for name, lines, style, color in errors:
            values = [100 * getattr(each, f"{name[:3]}{name[4]}_error") for each in lines]
            if values:
                right.plot([each.epoch for each in lines], values, style, color=color, label=name, clip_on=False)
                right.text(lines[-1].epoch, values[-1], f"  {values[-1]:.2f} %", va="center", color=color)
        right.set(xlabel="epoch", ylabel="error, %", ylim=(0, None))
        for axes in (left, right):
            axes.set_xlim(0, max([*at, last.epoch]))
            axes.grid()
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend()
