"""Bars of memory, parameters and operations: a chart for each network, and one of networks side by side."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from alexnet_mp.network.costs import LayerCost, LayerCosts

_PANELS = (  # attribute, title, divisor, color; the colors differ in gray too
    ("memory", "output memory, MB", 1e6, "#3b75b3"),
    ("parameters", "parameters, millions", 1e6, "#e3b778"),
    ("operations", "operations, millions", 1e6, "#7a9e5f"),
)


def draw_layer_costs(counted: LayerCosts, picture: Path) -> None:
    """A PNG of one network's layers, the first at the top."""
    _draw(counted.lines, [line.name for line in counted.lines], counted.network, picture)


def draw_network_totals(counted: Sequence[LayerCosts], picture: Path) -> None:
    """A PNG of the totals of several networks, side by side."""
    _draw(counted, [each.network for each in counted], "one image, forward", picture)


def _draw(costs: Sequence[LayerCost | LayerCosts], names: Sequence[str], title: str, picture: Path) -> None:
    figure = Figure(figsize=(12, 1.3 + 0.27 * len(names)), layout="constrained", facecolor="white")
    figure.suptitle(title, parse_math=False)
    for axes, (key, panel, divisor, color) in zip(figure.subplots(1, 3, sharey=True), _PANELS, strict=True):
        _bars(axes, names, [getattr(each, key) / divisor for each in costs], panel, color)
    figure.savefig(picture, dpi=80, format="png")


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], title: str, color: str) -> None:
    axes.barh(range(len(values)), values, 0.72, color=color, edgecolor="#222222", lw=0.6)
    highest = max(values) or 1.0
    for place, value in enumerate(values):
        if value > 0:
            axes.text(value + 0.015 * highest, place, _short(value), va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.18 * highest)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_title(title, fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", left=False)
    axes.spines[["top", "right"]].set_visible(False)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 10 else f"{value:.3g}"
