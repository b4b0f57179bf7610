"""Draws an evaluation: the classes by their errors, which were taken for which, and what an image may be."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from alexnet_mp.analysis.evaluate.folder import LARGEST_MATRIX, ClassErrors, Confusion
from alexnet_mp.common.letters import save_chart
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
    figure, axes = _bars(places, [f"{short_name(each.name)} ({each.images})" for each in seen])
    top5 = len(classes) > 5  # with fewer classes no image is outside of the first five
    top1_errors, top5_errors = (
        [100 * (getattr(each, key) or 0) for each in seen] for key in ("top1_error", "top5_error")
    )
    axes.barh(places, top1_errors, height=0.75, color="tab:blue", label="top-1")
    if top5:
        axes.barh(places, top5_errors, height=0.35, color="tab:orange", label="top-5")
    if left_out:
        text = f"... {left_out:,} classes between the worst and the best ..."
        axes.text(0.5, AT_EACH_END, text, transform=axes.get_yaxis_transform(), ha="center", va="center", fontsize=8)
    axes.set(xlabel="error, %; in brackets the images of a class", xlim=(0, 1.05 * max(top1_errors) or 1))
    if top5:
        axes.legend(frameon=False, loc="lower right")
    figure.suptitle(title, parse_math=False)
    save_chart(figure, picture, 120)


def draw_confusions(
    confusions: Tensor, names: Sequence[str], pairs: Sequence[Confusion], picture: Path, title: str
) -> None:
    """Draw the matrix `confusions` [classes, classes] or, of more than LARGEST_MATRIX classes, the first `pairs`."""
    if len(names) <= LARGEST_MATRIX:
        figure = _matrix(confusions, names)
    else:
        shown = list(pairs[:_PAIRS])
        places = list(range(len(shown)))
        names = [f"{short_name(p.label)} → {short_name(p.predicted)} ({p.fraction:.0%})" for p in shown]
        figure, axes = _bars(places, names)
        axes.barh(places, [pair.count for pair in shown], height=0.75, color="tab:blue")
        axes.set(xlabel="images; label → predicted, in brackets the part of the label's images")
        if not shown:
            axes.text(0.5, 0.5, "no image was taken for another class", transform=axes.transAxes, ha="center")
    figure.suptitle(title, parse_math=False)
    save_chart(figure, picture, 120)


def _bars(places: Sequence[int], names: Sequence[str]) -> tuple[Figure, Axes]:
    """A picture for named bars at `places`, the first at the top."""
    figure = Figure(figsize=(9, 1.6 + 0.25 * max(len(places), 4)), layout="constrained")
    axes = figure.subplots()
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_yticks(places, names, fontsize=8, parse_math=False)  # a name may hold dollar signs
    return figure, axes


def _matrix(confusions: Tensor, names: Sequence[str]) -> Figure:
    size = 3 + 0.45 * len(names)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    fractions = 100 * confusions / confusions.sum(dim=1, keepdim=True).clamp(min=1)
    image = axes.imshow(fractions.numpy(), cmap="Blues", vmin=0, vmax=100)
    for label, predicted in confusions.nonzero().tolist():
        color = "white" if fractions[label, predicted] > 50 else "black"
        count = str(int(confusions[label, predicted]))
        axes.text(predicted, label, count, ha="center", va="center", color=color, fontsize=7)
    ticks, labels = list(range(len(names))), [short_name(name) for name in names]
    axes.set_xticks(ticks, labels, rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(ticks, labels, fontsize=8, parse_math=False)
    axes.set(xlabel="predicted", ylabel="label")
    figure.colorbar(image, label="of the label's images, %", shrink=0.8)
    return figure


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
        axes.text(0.02, place, short_name(name), va="center", fontsize=8, weight=weight, parse_math=False)
        axes.text(0.98, place, f"{100 * probability:.1f} %", va="center", ha="right", fontsize=7, color="#222222")
    axes.set(xlim=(0, 1), ylim=(len(names) - 0.4, -0.6), xticks=[], yticks=[])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
