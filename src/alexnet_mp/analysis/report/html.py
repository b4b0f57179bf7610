"""HTML from Python values: whatever is not HTML already is escaped, so that no name in a file becomes markup."""

import html
from base64 import b64encode
from collections.abc import Iterable, Mapping

from alexnet_mp.common.text import printable, printable_lines

_WITHOUT_END = ("br", "img", "meta")

Value = str | int | float


class Html(str):
    """Text that is HTML: made by the functions of this file alone."""


Content = Html | str | None


def escaped(text: str) -> Html:
    """Text in one line, for an element or for a value in quotes; what acts instead of being shown is spelled out."""
    return Html(html.escape(printable(text), quote=True))


def lines(text: str) -> Html:
    """The same of text of several lines, for `pre`."""
    return Html(html.escape(printable_lines(text), quote=True))


def joined(parts: Iterable[Content], between: str = "") -> Html:
    """Several parts as one: HTML as it is, text escaped, None left out."""
    return Html(escaped(between).join(_as_html(part) for part in parts if part is not None))


def tag(name: str, attributes: Mapping[str, Value | None], *children: Content) -> Html:
    """An element; an attribute that is None is left out. `name` and the attributes' names are our own words."""
    said = "".join(
        f' {key}="{escaped(value if isinstance(value, str) else number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{said}>" + ("" if name in _WITHOUT_END else f"{joined(children)}</{name}>"))


def number(value: float) -> str:
    """A number as attributes take it: two decimals where it has any, and never `1e-05`."""
    text = f"{value:.2f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def data_uri(content: bytes, kind: str) -> str:
    """The bytes of a picture as an address that needs no network; `kind` is `png` or `jpeg`."""
    return f"data:image/{kind};base64,{b64encode(content).decode('ascii')}"


def _as_html(part: Html | str) -> Html:
    return part if isinstance(part, Html) else escaped(part)
