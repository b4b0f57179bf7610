"""The paper's Figure 1: training error over epochs, one line a run, with the line that all are to reach."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from alexnet_mp.analysis.figures.training_error import Comparison, comparison_in_words

_STYLES = {"ReLU": ("-", "#1f5fa8"), "tanh": ("--", "#c8553d")}  # solid and dashed, as the paper draws them
_OTHER = (":", "#5b9a4a")


def draw_training_errors(found: Comparison, picture: Path) -> None:
    """Draw the curves of every run as a PNG, those of one activation alike, and mark where each comes to the line."""
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    for activation in found.activations:
        style, color = _STYLES.get(activation, _OTHER)
        curves = found.of(activation)
        label = f"{activation}, learning rate {curves[0].learning_rate:g}, {len(curves)} seed{'s' * (len(curves) > 1)}"
        for curve in curves:
            axes.plot(range(curve.epochs + 1), curve.errors, style, color=color, lw=1.4, label=label)
            label = "_nolegend_"
            if curve.epochs_to_line is not None:
                axes.plot(curve.epochs_to_line, found.line, "o", color=color, ms=5)
    axes.axhline(found.line, color="#444444", lw=0.9, dashes=(4, 4))
    axes.annotate(
        f"{100 * found.line:g} %",
        (1, found.line),
        xycoords=("axes fraction", "data"),
        xytext=(3, -3),
        textcoords="offset points",
        fontsize=9,
    )
    axes.set(xlabel="epochs", ylabel="training error rate", xlim=(0, max(curve.epochs for curve in found.curves)))
    axes.set_ylim(0, 1.02 * max(max(curve.errors) for curve in found.curves))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right")
    axes.set_title(comparison_in_words(found), fontsize=9, parse_math=False)
    figure.savefig(picture, dpi=120, format="png")
