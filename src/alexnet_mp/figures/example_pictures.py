"""Examples as one picture: an image, its five most probable classes as bars, and the training images nearest to it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from alexnet_mp.figures.bars import draw_bars, short_name
from alexnet_mp.figures.examples import Example, Examples

_ROW = 1.5  # inches
_BARS_WIDTH = 1.9  # of an image's


def draw_examples(found: Examples, picture: Path, title: str) -> None:
    """Draw one row an example as a PNG, with its label above the image and the nearest training images at the right."""
    examples = found.examples
    near = max(len(each.neighbours) for each in examples)
    figure = Figure(figsize=(_ROW * (1 + _BARS_WIDTH + near), 0.9 + _ROW * 1.15 * len(examples)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(
        len(examples), 2 + near, squeeze=False, gridspec_kw={"width_ratios": [1, _BARS_WIDTH, *[1] * near]}
    )
    for row, example in zip(grid, examples, strict=True):
        _draw_row(row, example)
    grid[0][0].annotate(found.split, (0, 1.25), xycoords="axes fraction", fontsize=9, color="#444444")
    grid[0][1].annotate("most probable classes", (0, 1.25), xycoords="axes fraction", fontsize=9, color="#444444")
    if near:
        words = f"nearest of {found.searched:,} training images, by the last hidden layer's features"
        grid[0][2].annotate(words, (0, 1.25), xycoords="axes fraction", fontsize=9, color="#444444")
    figure.suptitle(title, parse_math=False)  # a name may hold dollar signs
    figure.savefig(picture, dpi=110, format="png")


def _draw_row(row: Sequence[Axes], example: Example) -> None:
    _draw_image(row[0], example.pixels, example.label, "bold")
    draw_bars(row[1], example.classes, example.probabilities, example.right)
    for axes in row[2:]:
        axes.set_axis_off()
    for axes, neighbour in zip(row[2:], example.neighbours, strict=False):
        _draw_image(axes, neighbour.pixels, neighbour.label, "bold" if neighbour.label == example.label else "normal")


def _draw_image(axes: Axes, pixels: Tensor, name: str, weight: str) -> None:
    """`pixels` uint8 [height, width, 1 or 3], with `name` above; the right class's is bold throughout."""
    shown = np.broadcast_to(pixels.numpy(), (*pixels.shape[:2], 3))
    axes.imshow(shown, interpolation="nearest")
    axes.set_title(short_name(name), fontsize=8, weight=weight, pad=3, parse_math=False)
    axes.set_axis_off()
