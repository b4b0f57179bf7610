"""Draws the most probable classes of an image as bars, as in the paper's Figure 4."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from alexnet_mp.common.text import short_name

RIGHT_COLOR, OTHER_COLOR = "#e57373", "#8fb4da"  # the paper's red and blue, light enough for words on them


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
