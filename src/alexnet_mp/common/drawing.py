"""One style for all pictures, drawn for a page 830 pixels wide and written with 200 dots an inch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alexnet_mp.common.letters import save_chart

DPI, WIDTH = 200, 8.3  # inches: 100 pixels of the page each, so that a point is 1.4 of them
BLUE, RUST, GREEN, SAND, INK = "#2b5c8a", "#a5441b", "#4b6a24", "#e3b778", "#222222"  # blue and rust are the report's
_STYLE: dict[Any, Any] = {
    **{"figure.dpi": DPI, "savefig.dpi": DPI, "font.size": 8, "axes.titlesize": 9, "figure.titlesize": 10},
    **{"axes.labelsize": 9, "lines.markersize": 3, "lines.linewidth": 1.4, "grid.alpha": 0.3, "hatch.linewidth": 0.6},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "legend.frameon": False},
    "text.parse_math": False,  # a name may hold dollar signs
}


@contextmanager
def drawing(picture: Path, width: float, height: float, title: str = "") -> Iterator[Figure]:
    """A figure of `width` x `height` inches to draw on, which then becomes the PNG `picture`."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.suptitle(title)
        yield figure
        save_chart(figure, picture, DPI)


def name_bars(axes: Axes, names: Sequence[str], places: Sequence[int] | None = None, above: float = 0.6) -> None:
    """Name horizontal bars at `places`, the first at the top with so much room above it; all by default."""
    places = range(len(names)) if places is None else places
    axes.set_yticks(places, names)
    axes.set_ylim(max(places, default=0) + 0.6, -above)
    axes.tick_params(axis="y", left=False)
    axes.grid(axis="x")
