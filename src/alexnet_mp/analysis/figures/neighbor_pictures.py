"""Images with their most probable classes as bars, and the training images nearest to each, as one picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from alexnet_mp.analysis.figures.bars import draw_bars
from alexnet_mp.analysis.figures.nearest_neighbors import NearestNeighbors, QueryImage
from alexnet_mp.common.text import short_name

_SIDE, _BARS = 1.1, 2.1  # inches: of an image, and the width of the bars
_BESIDE, _BETWEEN, _EDGE, _TOP = 0.1, 0.3, 0.15, 0.95  # inches: between columns, between rows, around, above


def draw_nearest_neighbors(found: NearestNeighbors, picture: Path, title: str) -> None:
    """Draw one row an example as a PNG, with its label above the image and the nearest training images at the right."""
    rows, near = len(found.examples), max(len(each.neighbors) for each in found.examples)
    width = 2 * _EDGE + _SIDE + _BARS + near * _SIDE + (1 + near) * _BESIDE
    height = _TOP + rows * _SIDE + (rows - 1) * _BETWEEN + _EDGE
    figure = Figure(figsize=(width, height))

    def place(row: int, column: int) -> Axes:
        left = _EDGE + (column and _SIDE + _BESIDE) + (column > 1 and _BARS + _BESIDE)
        left += max(0, column - 2) * (_SIDE + _BESIDE)
        bottom = height - _TOP - (row + 1) * _SIDE - row * _BETWEEN
        return figure.add_axes(
            (left / width, bottom / height, (_BARS if column == 1 else _SIDE) / width, _SIDE / height)
        )

    for row, example in enumerate(found.examples):
        _draw_row([place(row, column) for column in range(2 + len(example.neighbors))], example)
    words = [found.split, "most probable classes"]
    words += [f"nearest of {found.searched:,} training images, by the last hidden layer's features"] if near else []
    for axes, heading in zip(figure.axes, words, strict=False):
        at = (axes.get_position().x0, 1 - (_TOP - 0.27) / height)
        figure.text(*at, heading, fontsize=9, color="#444444", va="bottom", parse_math=False)
    figure.suptitle(title, y=1 - 0.12 / height, va="top", fontsize=11, parse_math=False)  # a name may hold dollar signs
    figure.savefig(picture, dpi=120, format="png")


def _draw_row(row: Sequence[Axes], example: QueryImage) -> None:
    _draw_image(row[0], example.pixels, example.label, "bold")
    draw_bars(row[1], example.classes, example.probabilities, example.right)
    for axes, neighbor in zip(row[2:], example.neighbors, strict=True):
        _draw_image(axes, neighbor.pixels, neighbor.label, "bold" if neighbor.label == example.label else "normal")


def _draw_image(axes: Axes, pixels: Tensor, name: str, weight: str) -> None:
    """`pixels` uint8 [height, width, 1 or 3], with `name` above; the right class's is bold throughout."""
    shown = np.broadcast_to(pixels.numpy(), (*pixels.shape[:2], 3))
    axes.imshow(shown, interpolation="nearest")
    axes.set_title(short_name(name), fontsize=8, weight=weight, pad=3, parse_math=False)
    axes.set_axis_off()
