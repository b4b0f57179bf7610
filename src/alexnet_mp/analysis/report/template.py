"""Renders the report's Jinja2 templates: every value is made printable and escaped, so that no name becomes markup."""

import io
import re
from base64 import b64encode
from dataclasses import dataclass

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from alexnet_mp.analysis.report.words import listed, number_in_words
from alexnet_mp.common.text import count, printable, printable_lines

_PHOTOGRAPH = 64  # pixels a side: larger pictures are sent as JPEG and shown smooth, smaller ones pixel by pixel
_LARGEST_SIDE = 160


@dataclass(frozen=True)
class EmbeddedImage:
    """A picture as a `data:` address, which needs no network; `pixelated`: to be shown pixel by pixel."""

    address: str
    width: int
    height: int
    pixelated: bool


def render(template: str, **values: object) -> Markup:
    """A template of the report's folder `templates`, filled in.

    Values are escaped, and their control characters spelled out; only a `Markup` stands as it is.
    """
    return Markup(_ENVIRONMENT.get_template(template).render(values))


def embedded_image(pixels: NDArray[np.uint8], is_drawing: bool = False) -> EmbeddedImage:
    """A picture [height, width, channels]; a drawing of flat colors keeps every pixel, a photograph is made smaller."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
    written = io.BytesIO()
    pixelated = is_drawing or min(image.size) <= _PHOTOGRAPH
    if pixelated:
        image.save(written, "PNG", optimize=True)
    else:
        image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
        image.save(written, "JPEG", quality=85)
    kind = "png" if pixelated else "jpeg"
    address = f"data:image/{kind};base64,{b64encode(written.getvalue()).decode('ascii')}"
    return EmbeddedImage(address, image.width, image.height, pixelated)


def percent(fraction: float) -> str:
    """`4.44 %` for 0.0444, with a space that does not break."""
    return f"{100 * fraction:.2f}\u00a0%"


def amount(size: float) -> str:
    """Bytes in a unit that reads well: `789.0 kB`."""
    if size < 1000:
        return f"{size:,.0f}\u00a0B"
    thousands = 1 + (size >= 1e6) + (size >= 1e9)
    return f"{size / 1000**thousands:,.1f}\u00a0{('kB', 'MB', 'GB')[thousands - 1]}"


def duration(seconds: float) -> str:
    """`32 s`, `17 min`, `5.4 h`."""
    if seconds < 120:
        return f"{seconds:.0f}\u00a0s"
    return f"{seconds / 60:.0f}\u00a0min" if seconds < 7200 else f"{seconds / 3600:.1f}\u00a0h"


def _plain_number(value: float) -> str:
    """A number as attributes of SVG take it: at most two decimals, and never `1e-05`."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _code_in_backticks(words: str) -> Markup:
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(printable(words)))))


def _printable_value(value: object) -> object:
    return "" if value is None else value if isinstance(value, Markup) else printable(str(value))


_ENVIRONMENT = Environment(
    loader=PackageLoader("alexnet_mp.analysis.report"),
    autoescape=True,
    finalize=_printable_value,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.globals |= {"count": count}
_ENVIRONMENT.filters |= {
    "amount": amount,
    "code_in_backticks": _code_in_backticks,
    "duration": duration,
    "embedded": embedded_image,
    "in_words": number_in_words,
    "lines": lambda text: escape(printable_lines(text)),
    "listed": listed,
    "percent": percent,
    "plain": _plain_number,
    "spec": format,
}
