"""Writes what every layer of networks costs: a Markdown page of tables, CSV files, and bar charts."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from alexnet_mp.common.drawing import BLUE, GREEN, INK, SAND, WIDTH, drawing, name_bars
from alexnet_mp.common.text import csv_table, markdown_table
from alexnet_mp.errors import ConfigurationError, explained
from alexnet_mp.network.costs import LayerCost, LayerCosts, layer_costs
from alexnet_mp.network.table import Network

_FOLDER = "layer-costs"
_PANELS = (  # attribute, title, divisor, color; the colors differ in gray too
    ("memory", "output memory, MB", 1e6, BLUE),
    ("parameters", "parameters, millions", 1e6, SAND),
    ("operations", "operations, millions", 1e6, GREEN),
)
_NAME = re.compile(r"[A-Za-z0-9_][\w.+-]*", re.ASCII)

_INTRODUCTION = """\
What networks cost, layer by layer, for one image forward, counted as in Johnson's lecture 8 (EECS 498-007, "CNN
architectures"):

- memory: 4 x channels x height x width bytes of each layer's output, in float32; of branches, all that are inside;
- parameters: weights and biases;
- operations: output elements x operations for each. A multiplication with its addition counts as one operation. An
  element of a convolution or fully-connected layer takes as many as it has inputs, of pooling as many as its window has
  pixels, of the response normalization over n maps n + 2, over a window its pixels + 2.

ReLU, tanh, dropout and the joining of branches have no line: they work in place, and the lecture counts nothing for
them. The lecture's AlexNet is `one_weird_trick`, there with images of 227x227. Of a network of several towers, shapes
are of one tower and everything else is of all. Every number follows from the network's table."""


def write_layer_costs(networks: Sequence[Network], out: Path, charts: bool) -> list[Path]:
    """Write `out`/layer-costs.md and `out`/layer-costs/*.{csv,png}; return their paths.

    Raises ConfigurationError if it cannot write, and for a network whose name cannot be that of a file.
    """
    for network in networks:
        if not _NAME.fullmatch(network.name):
            raise ConfigurationError(
                f"network {network.name!r} would name files; take letters, digits and . _ + - only, the first no sign"
            )
    counted = [layer_costs(network) for network in networks]
    folder = out / _FOLDER
    written = [out / f"{_FOLDER}.md"]
    with explained(f"cannot write the layer costs to out={out}"):
        folder.mkdir(parents=True, exist_ok=True)
        for each in counted:
            written.append(folder / f"{each.network}.csv")
            written[-1].write_text(_csv(each), "utf-8")
            if charts:
                written.append(folder / f"{each.network}.png")
                _draw(each.lines, [line.name for line in each.lines], each.network, written[-1])
        if charts:
            written.append(folder / "comparison.png")
            _draw(counted, [each.network for each in counted], "one image, forward", written[-1])
        written[0].write_text(layer_costs_page(counted, charts, str(out)), "utf-8")
    return written


def layer_costs_page(counted: Sequence[LayerCosts], charts: bool, out: str) -> str:
    """The whole page in Markdown; `out` is the folder that it is written to."""
    names = shlex.quote(f"[{','.join(each.network for each in counted)}]")
    command = f"python launch/describe.py networks={names} out={shlex.quote(out)}{'' if charts else ' charts=false'}"
    parts = ["# Memory, parameters and operations of every layer", f"Made by\n\n```\n{command}\n```", _INTRODUCTION]
    head = ["network", "towers", "output memory, MB", "parameters", "operations", "of them multiply-adds of products"]
    totals = [
        [f"`{each.network}`", str(each.towers), f"{each.memory / 1e6:.2f}"]
        + [f"{number:,}" for number in (each.parameters, each.operations, each.multiply_adds)]
        for each in counted
    ]
    parts.append(markdown_table([head, *totals], text_columns=1))
    if charts:
        parts.append(f"![Memory, parameters and operations of the networks, side by side]({_FOLDER}/comparison.png)")
    for each in counted:
        parts.append(f"## {each.network}")
        towers = "one tower" if each.towers == 1 else f"{each.towers} towers"
        parts.append(
            f"Images {_shape(each.image)}, {towers}. Every layer by itself: [CSV]({_FOLDER}/{each.network}.csv)."
        )
        if charts:
            parts.append(f"![Bars of {each.network}'s layers]({_FOLDER}/{each.network}.png)")
        parts.append(_layers(each))
    return "\n\n".join(parts) + "\n"


def _csv(counted: LayerCosts) -> str:
    """Every layer by itself, those in branches too, without the auxiliary classifiers; memory in bytes."""
    columns = ("layer", "kind", "output", "memory_bytes", "parameters", "operations_each", "operations")
    rows = []
    for line in counted.layers:
        numbers = (line.memory, line.parameters, line.operations_each, line.operations)
        rows.append(dict(zip(columns, (line.name, line.kind, _shape(line.output_shape), *numbers), strict=True)))
    return csv_table(columns, rows)


def _layers(counted: LayerCosts) -> str:
    head = ["layer", "kind", "output of a tower", "memory, KiB", "parameters", "operations each", "operations"]
    total = LayerCost("", "", (), counted.memory, counted.parameters, None, counted.operations, counted.multiply_adds)
    rows = [_cells(line, line.name, _shape(line.output_shape)) for line in counted.lines]
    rows.append(_cells(total, "**total**", ""))
    rows += [_cells(line, f"{line.name}, in training alone, not in the total", "") for line in counted.training_only]
    return markdown_table([head, *rows], text_columns=3)


def _cells(line: LayerCost, name: str, shape: str) -> list[str]:
    counts = [f"{number:,}" if number else "" for number in (line.parameters, line.operations_each)]
    return [name, line.kind, shape, f"{line.memory / 1024:,.1f}", *counts, f"{line.operations:,}"]


def _shape(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))


def _draw(costs: Sequence[LayerCost | LayerCosts], names: Sequence[str], title: str, picture: Path) -> None:
    """Draw a PNG of bars, the first at the top: memory, parameters and operations side by side."""
    with drawing(picture, WIDTH, 0.9 + 0.21 * len(names), title) as figure:
        for axes, (key, panel, divisor, color) in zip(figure.subplots(1, 3, sharey=True), _PANELS, strict=True):
            values = [getattr(each, key) / divisor for each in costs]
            axes.barh(range(len(values)), values, 0.72, color=color, edgecolor=INK, lw=0.6)
            highest = max(values) or 1.0
            for place, value in enumerate(values):
                if value > 0:
                    axes.text(value + 0.015 * highest, place, _short(value), va="center")
            name_bars(axes, names)
            axes.set(xlim=(0, 1.25 * highest), title=panel)
            axes.xaxis.set_major_locator(MaxNLocator(4))


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 10 else f"{value:.3g}"
