"""Draws a run's learning curves."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from alexnet_mp.common.letters import save_chart
from alexnet_mp.training.metrics import Metrics


def draw_learning_curves(metrics: Metrics, picture: Path, title: str) -> None:
    """Draw loss and error over epochs as a PNG; `metrics` has a validation."""
    steps, validations = metrics.steps, metrics.validations
    epochs_per_step = validations[-1].epoch / validations[-1].step
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [found.epoch for found in validations]
    left.plot([s.step * epochs_per_step for s in steps], [s.loss for s in steps], lw=0.8, label="training")
    left.plot(epochs, [found.loss for found in validations], "o-", ms=3, label="validation")
    left.set(xlabel="epoch", ylabel="cross-entropy", yscale="log")
    top1 = [100 * found.top1_error for found in validations]
    top5 = [100 * found.top5_error for found in validations]
    for label, errors in (("top-1", top1), ("top-5", top5)):
        right.plot(epochs, errors, "o-", ms=3, label=f"{label}, validation")
    right.annotate(f"{top1[-1]:.2f} %", (epochs[-1], top1[-1]), textcoords="offset points", xytext=(6, 0), va="center")
    right.set(xlabel="epoch", ylabel="error, %", xlim=(0, 1.2 * epochs[-1]), ylim=(0, 1.1 * max(top1) or 1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False)
    figure.suptitle(title, parse_math=False)  # a name may hold dollar signs
    save_chart(figure, picture, 120)
