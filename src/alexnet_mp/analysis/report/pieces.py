"""The pieces that sections are made of: tables, figures, lists of terms, bars, pictures."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet_mp.analysis.report.html import Content, Html, data_uri, joined, lines, number, tag

_PHOTOGRAPH = 64  # pixels a side: larger pictures are sent as JPEG and shown smooth, smaller ones pixel by pixel
_LARGEST_SIDE = 160


@dataclass(frozen=True)
class Section:
    """A part of the page; `name` is what links to it."""

    name: str
    title: str
    body: Html


def section(name: str, title: str, *parts: Content) -> Section:
    """A section of the page from its parts."""
    return Section(name, title, joined(parts))


def paragraph(*parts: Content) -> Html:
    """Words, with pieces of HTML among them."""
    return tag("p", {}, *parts)


def prose(words: str) -> Html:
    """Words in which what stands between backticks is code."""
    parts = re.split("`([^`]*)`", words)
    return joined(tag("code", {}, part) if place % 2 else part for place, part in enumerate(parts))


def code(words: str) -> Html:
    """A name, as code."""
    return tag("code", {}, words)


def block(words: str) -> Html:
    """Lines of code; those that are too long are broken."""
    return tag("pre", {}, tag("code", {}, lines(words)))


def terms(entries: Sequence[tuple[str, Content]], kind: str = "terms") -> Html:
    """Names, and what each is."""
    return tag("dl", {"class": kind}, *(tag("div", {}, tag("dt", {}, k), tag("dd", {}, v)) for k, v in entries))


def bullets(items: Sequence[Content]) -> Html:
    """A list."""
    return tag("ul", {}, *(tag("li", {}, item) for item in items))


def figure(content: Html, *caption: Content, kind: str | None = None) -> Html:
    """A figure with its caption; the page numbers it."""
    return tag("figure", {"class": kind}, content, tag("figcaption", {}, *caption))


def table(
    caption: Content, header: Sequence[str], rows: Sequence[Sequence[Content]], words: int = 1, kind: str = ""
) -> Html:
    """A table whose first column names the row; the first `words` columns are text and the others numbers.

    Of `kind` "stacked", a row becomes a small list of its own on a narrow screen, where others scroll.
    """
    classes = ["w" if column < words else "n" for column in range(len(header))]
    head = [tag("th", {"scope": "col", "class": c}, name) for c, name in zip(classes, header, strict=True)]
    body = [
        tag(
            "tr",
            {},
            tag("th", {"scope": "row", "class": "w"}, row[0]),
            *(
                tag("td", {"class": c, "data-column": name}, cell)
                for c, name, cell in zip(classes[1:], header[1:], row[1:], strict=True)
            ),
        )
        for row in rows
    ]
    return scrolling(
        tag(
            "table",
            {"class": kind or None},
            tag("caption", {}, tag("span", {}, caption)),
            tag("thead", {}, tag("tr", {}, *head)),
            tag("tbody", {}, *body),
        )
    )


def scrolling(content: Html) -> Html:
    """Something that may be wider than a telephone: it scrolls by itself, by touch and by the keyboard."""
    return tag("div", {"class": "scroll", "tabindex": 0}, content)


def bar(share: float, kind: str = "bar") -> Html:
    """A bar of a share of the width; the number stands beside it, so nothing is lost to who does not see it."""
    width = f"{number(100 * min(max(share, 0), 1))}%"
    filled = tag("rect", {"class": "filled", "width": width, "height": "100%"})
    return tag("svg", {"class": kind, "aria-hidden": "true"}, filled)


def folded(title: str, *parts: Content) -> Html:
    """What is there to look up: closed until it is opened."""
    return tag("details", {}, tag("summary", {}, title), *parts)


def picture(pixels: NDArray[np.uint8], description: str) -> Html:
    """A small picture [height, width, channels] in the page itself."""
    height, width, channels = pixels.shape
    image = Image.fromarray(pixels[:, :, 0] if channels == 1 else np.ascontiguousarray(pixels[:, :, :3]))
    is_photograph = min(height, width) > _PHOTOGRAPH
    if is_photograph:
        image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    return _image(image, "jpeg" if is_photograph else "png", description)


def drawing(pixels: NDArray[np.uint8], description: str) -> Html:
    """A picture of flat colors, every pixel as it is."""
    return _image(Image.fromarray(pixels), "png", description)


def _image(image: Image.Image, kind: str, description: str) -> Html:
    written = io.BytesIO()
    if kind == "jpeg":
        image.save(written, "JPEG", quality=85)
    else:
        image.save(written, "PNG", optimize=True)
    size = {"width": image.width, "height": image.height}
    pixelated = "pixels" if kind == "png" else None
    return tag("img", {"src": data_uri(written.getvalue(), kind), "alt": description, "class": pixelated, **size})


def percent(fraction: float) -> str:
    """`4.44 %` for 0.0444, with a space that does not break."""
    return f"{100 * fraction:.2f}\u00a0%"


def amount(size: float) -> str:
    """Bytes in a unit that reads well: `789.0 kB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:,.0f}\u00a0B" if unit == "B" else f"{size:,.1f}\u00a0{unit}"
        size /= 1000
    raise AssertionError


def duration(seconds: float) -> str:
    """`32 s`, `17 min`, `5.4 h`."""
    if seconds < 120:
        return f"{seconds:.0f}\u00a0s"
    return f"{seconds / 60:.0f}\u00a0min" if seconds < 7200 else f"{seconds / 3600:.1f}\u00a0h"
