"""Classified photographs to look at: bars of text for a terminal, and a PNG as the paper's Figure 4, left."""

from collections.abc import Sequence
from pathlib import Path

from alexnet_mp.analysis.evaluate.photographs import Classified
from alexnet_mp.common.text import printable, short_name
from alexnet_mp.errors import ConfigurationError

MOST = 100  # photographs in one PNG
_WIDTH = 30  # characters of a bar that stands for 1
_ROW = 1.6  # inches


def bars_of_text(found: Sequence[Classified]) -> str:
    """Each photograph's name, and its classes with a bar and a percentage each."""
    lines = []
    for photograph in found:
        lines.append(printable(str(photograph.path)))
        names = [short_name(name) for name in photograph.names]
        for name, probability in zip(names, photograph.probabilities, strict=True):
            bar = "█" * round(_WIDTH * probability)
            lines.append(f"  {name:<{max(map(len, names))}}  {bar:<{_WIDTH}} {100 * probability:5.1f} %")
    return "\n".join(lines)


def check_out(out: Path, photographs: int) -> None:
    """Raise ConfigurationError where a PNG of so many photographs cannot or must not be written to `out`."""
    if out.exists():
        raise ConfigurationError(f"out={out} exists already; choose another file")
    if out.suffix.lower() != ".png":
        raise ConfigurationError(f"out={out} must end in .png")
    if photographs > MOST:
        raise ConfigurationError(f"out={out} has room for {MOST} photographs, not {photographs}; leave out= away")


def draw_photographs(found: Sequence[Classified], out: Path) -> None:
    """Draw each photograph, as the network was given it, and its classes as bars, as a PNG."""
    from matplotlib.figure import Figure  # slow to import

    from alexnet_mp.analysis.figures.bars import draw_bars

    figure = Figure(figsize=(4.2 * _ROW, _ROW * len(found)), layout="constrained")
    grid = figure.subplots(len(found), 2, squeeze=False, gridspec_kw={"width_ratios": [1, 2.6]})
    for (left, right), photograph in zip(grid, found, strict=True):
        left.imshow(photograph.pixels, interpolation="nearest")
        left.set_axis_off()
        left.set_title(short_name(photograph.path.name), fontsize=8, parse_math=False)  # a name may hold dollar signs
        draw_bars(right, photograph.names, photograph.probabilities)
    unfinished = out.with_name(f".{out.name}.unfinished")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(unfinished, dpi=120, format="png")
        unfinished.replace(out)
    except OSError as error:
        raise ConfigurationError(f"cannot write out={out}: {error}") from error
