"""Draws an evaluation: the classes by their errors, which were taken for which, and what an image may be."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from alexnet_mp.analysis.evaluate.folder import LARGEST_MATRIX, ClassErrors, Confusion
from alexnet_mp.common.drawing import BLUE, SAND, WIDTH, drawing, name_bars
from alexnet_mp.common.text import short_name

AT_EACH_END = 15  # of too many classes to draw, so many worst and so many best
_PAIRS = 25
RIGHT_COLOR, OTHER_COLOR = "#e57373", "#8fb4da"  # the paper's red and blue, light enough for words on them


def draw_classes(classes: Sequence[ClassErrors], picture: Path, title: str) -> None:
    """Draw a bar for every class that has images, the worst at the top, as a PNG.

    Of more than twice AT_EACH_END classes, those many worst and best, with a gap between them.
    """
    seen = sorted((each for each in classes if each.images), key=lambda each: -(each.top1_error or 0))
    left_out = max(0, len(seen) - 2 * AT_EACH_END)
    places = list(range(len(seen)))
    if left_out:
        seen = [*seen[:AT_EACH_END], *seen[-AT_EACH_END:]]
        places = [*range(AT_EACH_END), *range(AT_EACH_END + 1, 2 * AT_EACH_END + 1)]
    top1, top5 = ([100 * (getattr(each, key) or 0) for each in seen] for key in ("top1_error", "top5_error"))
    with drawing(picture, WIDTH, 1.2 + 0.21 * max(len(places), 4), title) as figure:
        axes = figure.subplots()
        axes.barh(places, top1, height=0.75, color=BLUE, label="top-1")
        if len(classes) > 5:  # with fewer no image is outside of the first five
            axes.barh(places, top5, height=0.35, color=SAND, label="top-5")
            axes.legend(loc="lower right")
        if left_out:
            text = f"... {left_out:,} classes between the worst and the best ..."
            axes.text(0.5, AT_EACH_END, text, transform=axes.get_yaxis_transform(), ha="center", va="center")
        name_bars(axes, [f"{short_name(each.name)} ({each.images})" for each in seen], places)
        axes.set(xlabel="error, %; in brackets the images of a class", xlim=(0, 1.05 * max(top1) or 1))


def draw_confusions(
    confusions: Tensor, names: Sequence[str], pairs: Sequence[Confusion], picture: Path, title: str
) -> None:
    """Draw the matrix `confusions` [classes, classes] or, of more than LARGEST_MATRIX classes, the first `pairs`."""
    if len(names) <= LARGEST_MATRIX:
        side = 2.2 + 0.3 * len(names)
        with drawing(picture, side + 0.6, side, title) as figure:
            _draw_matrix(figure, confusions, names)
            return
    shown = list(pairs[:_PAIRS])
    with drawing(picture, WIDTH, 1.2 + 0.21 * max(len(shown), 4), title) as figure:
        axes = figure.subplots()
        axes.barh(range(len(shown)), [pair.count for pair in shown], height=0.75, color=BLUE)
        name_bars(axes, [f"{short_name(p.label)} → {short_name(p.predicted)} ({p.fraction:.0%})" for p in shown])
        axes.set(xlabel="images; label → predicted, in brackets the part of the label's images")
        if not shown:
            axes.text(0.5, 0.5, "no image was taken for another class", transform=axes.transAxes, ha="center")


def _draw_matrix(figure: Figure, confusions: Tensor, names: Sequence[str]) -> None:
    axes = figure.subplots()
    fractions = 100 * confusions / confusions.sum(dim=1, keepdim=True).clamp(min=1)
    image = axes.imshow(fractions.numpy(), cmap="Blues", vmin=0, vmax=100)
    for label, predicted in confusions.nonzero().tolist():
        color = "white" if fractions[label, predicted] > 50 else "black"
        count = str(int(confusions[label, predicted]))
        axes.text(predicted, label, count, ha="center", va="center", color=color, fontsize=7)
    ticks, labels = list(range(len(names))), [short_name(name) for name in names]
    axes.set_xticks(ticks, labels, rotation=90)
    axes.set_yticks(ticks, labels)
    axes.set(xlabel="predicted", ylabel="label")
    figure.colorbar(image, label="of the label's images, %", shrink=0.8)


def draw_image(axes: Axes, pixels: NDArray[np.uint8], name: str, weight: str = "normal") -> None:
    """Draw `pixels` [height, width, 1 or 3] with a name above; names may come from files of others."""
    axes.imshow(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), interpolation="nearest")
    axes.set_title(short_name(name), fontsize=8, weight=weight, pad=3)
    axes.set_axis_off()


def draw_bars(axes: Axes, names: Sequence[str], probabilities: Sequence[float], right: int | None = None) -> None:
    """Draw a bar for each class, the first at the top, its name upon it; the axis goes from 0 to 1.

    `right` is the place of the right class among `names`, None if it is unknown or not among them: that bar is red
    and its name bold. Names may come from files of others, and are shown as they are.
    """
    places = list(range(len(names)))
    colors = [RIGHT_COLOR if place == right else OTHER_COLOR for place in places]
    axes.barh(places, list(probabilities), height=0.8, color=colors)
    for place, (name, probability) in enumerate(zip(names, probabilities, strict=True)):
        weight = "bold" if place == right else "normal"
        axes.text(0.02, place, short_name(name), va="center", weight=weight)
        axes.text(0.98, place, f"{100 * probability:.1f} %", va="center", ha="right", fontsize=7, color="#222222")
    axes.set(xlim=(0, 1), ylim=(len(names) - 0.4, -0.6), xticks=[], yticks=[])
    axes.spines["bottom"].set_visible(False)
