"""Letters of charts: finds an installed font for those that matplotlib's own lacks; if none has them, other names."""

import re
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # slow to import
    from matplotlib.figure import Figure

_LIKELY = re.compile("cjk|nanum|malgun|gothic|noto|song|hei|unicode|unifont", re.IGNORECASE)  # to have many letters


def drawable_names(names: Sequence[str]) -> list[str]:
    """Names of classes; of one that no font can write the key (`n01440764` of `n01440764 (tench)`), or the number."""
    choices = ((name, name.partition(" (")[0], f"class {number}") for number, name in enumerate(names))
    return [next(each for each in choice if None not in map(_family, each)) for choice in choices]


def save_chart(figure: "Figure", picture: Path, dpi: int) -> None:
    """Write a figure as a PNG, with every letter that any font here has, and without a warning for the others."""
    from matplotlib.text import Text

    for axes in figure.axes:
        axes.xaxis.get_ticklabels()  # which gives them their text
        axes.yaxis.get_ticklabels()
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    families = {family for text in texts for family in map(_family, text.get_text()) if family}
    for text in texts if families else []:
        text.set_fontfamily([*text.get_fontfamily(), *sorted(families)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from ")
        figure.savefig(picture, dpi=dpi, format="png")


@cache
def _family(letter: str) -> str | None:
    """The installed family that has a letter, empty if it is the default one; None if no font has it."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    if letter.isascii() or get_font(findfont(FontProperties())).get_char_index(ord(letter)):
        return ""
    fonts = sorted(fontManager.ttflist, key=lambda font: (_LIKELY.search(font.name) is None, font.weight != 400))
    return next((font.name for font in fonts if get_font(font.fname).get_char_index(ord(letter))), None)
