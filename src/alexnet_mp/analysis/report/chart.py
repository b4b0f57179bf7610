"""A line chart as SVG: its colors are the page's, so that it is legible in both themes and in print."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from alexnet_mp.analysis.report.html import Html, joined, number, tag

WIDTH, HEIGHT = 400, 270  # of the drawing; the page scales it, to 320 px on a telephone
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 54, 34, 40
_LETTER = 6.4  # the width of one, about
_MOST_MARKS = 8

Style = Literal["thin", "dots", "squares", "diamonds"]


@dataclass(frozen=True)
class Series:
    """A curve: `points` (x, y), with dots or without, and the range (x, low, high) around it.

    `end` is written beside the last point. `style` also is the name of its color in the page's style sheet.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: Style
    end: str = ""
    band: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True)
class Mark:
    """A place on the x axis, with a word."""

    x: float
    label: str


@dataclass(frozen=True)
class _Scale:
    """From values to places on the drawing."""

    low: float
    high: float
    first: float
    last: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(each) if self.is_log else each for each in (self.low, self.high, value))
        return self.first + (at - low) / (high - low) * (self.last - self.first)


def line_chart(
    description: str,
    series: Sequence[Series],
    marks: Sequence[Mark],
    x_label: str,
    y_label: str,
    last_x: float = 0,
    log: bool = False,
) -> Html:
    """The chart; `description` says to who cannot see it what it shows.

    The x axis goes from 0 to the last point, at least to `last_x`. With `log`, the y axis is logarithmic where all
    values are positive. Series without points are left out.
    """
    shown = [each for each in series if each.points]
    values = [y for each in shown for _, y in each.points] + [
        y for each in shown for _, *ends in each.band for y in ends
    ]
    xs = [x for each in shown for x, _ in each.points]
    is_log = log and min(values, default=0) > 0
    y = _y_scale(values or [0, 1], is_log)
    x = _Scale(0, max([*xs, last_x, 1e-9]), _LEFT, WIDTH - _RIGHT)
    parts = [
        _grid(x, y, x_label, y_label),
        *_marks(marks[:_MOST_MARKS], x),
        *(_curve(each, x, y) for each in shown),
        *_ends(shown, x, y),
        _legend(shown),
    ]
    attributes = {"class": "chart", "viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-label": description}
    return tag("svg", attributes, *parts)


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from `low` to `high`, at most `most` of them, 1, 2 or 5 times a power of ten apart."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * each for each in (1, 2, 5, 10, 20) if (high - low) / (power * each) <= most - 1)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between the two; over more than two decades the powers alone."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low <= 100 else (1,)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def _y_scale(values: Sequence[float], is_log: bool) -> _Scale:
    low, high = min(values), max(values)
    if is_log:
        return _Scale(low / 1.15, high * 1.15, HEIGHT - _BOTTOM, _TOP, True)
    low = min(low, 0.0)
    high = high if high > low else low + 1
    return _Scale(low, high + 0.08 * (high - low), HEIGHT - _BOTTOM, _TOP)


def _grid(x: _Scale, y: _Scale, x_label: str, y_label: str) -> Html:
    parts: list[Html] = []
    for tick in log_ticks(y.low, y.high) if y.is_log else nice_ticks(y.low, y.high):
        parts.append(_line("grid", _LEFT, y(tick), WIDTH - _RIGHT, y(tick)))
        parts.append(_text(_short(tick), _LEFT - 7, y(tick) + 4, "end"))
    for tick in [tick for tick in nice_ticks(x.low, x.high) if tick == int(tick)]:  # epochs and steps are whole
        parts.append(_line("tick", x(tick), HEIGHT - _BOTTOM, x(tick), HEIGHT - _BOTTOM + 4))
        parts.append(_text(_short(tick), x(tick), HEIGHT - _BOTTOM + 17, "middle"))
    parts.append(_line("axis", _LEFT, HEIGHT - _BOTTOM, WIDTH - _RIGHT, HEIGHT - _BOTTOM))
    parts.append(_text(x_label, (_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 5, "middle"))
    parts.append(_text(y_label, _LEFT - 7, _TOP - 10, "start" if len(y_label) > 6 else "end"))
    return tag("g", {}, *parts)


def _marks(marks: Sequence[Mark], x: _Scale) -> list[Html]:
    """Dashed lines, their words on the right where there is room before the next one, else on the left and lower."""
    places = [x(mark.x) for mark in marks]
    parts = []
    for number_of_it, (mark, at, end) in enumerate(zip(marks, places, [*places, WIDTH][1:], strict=True)):
        fits = at + _LETTER * len(mark.label) + 6 < end
        height = _TOP + 11 + (0 if fits else 14 * (number_of_it % 3))
        word = _text(mark.label, at + 4 if fits else at - 4, height, "start" if fits else "end", "word")
        parts.append(tag("g", {"class": "mark"}, _line("fall", at, _TOP, at, HEIGHT - _BOTTOM), word))
    return parts


def _curve(series: Series, x: _Scale, y: _Scale) -> Html:
    parts: list[Html] = []
    if series.band:
        upper = [f"{number(x(at))},{number(y(high))}" for at, _, high in series.band]
        lower = [f"{number(x(at))},{number(y(low))}" for at, low, _ in reversed(series.band)]
        parts.append(tag("polygon", {"class": "band", "points": " ".join([*upper, *lower])}))
    places = [(x(at), y(value)) for at, value in series.points]
    line = " ".join(f"{number(left)},{number(top)}" for left, top in places)
    parts.append(tag("polyline", {"class": "line", "points": line}))
    if series.style != "thin" and len(places) <= 40:
        parts += [_symbol(series.style, left, top) for left, top in places]
    elif len(places) == 1:
        parts.append(_symbol("dots", *places[0]))
    return tag("g", {"class": series.style}, *parts)


def _symbol(style: str, left: float, top: float) -> Html:
    if style == "squares":
        return tag("rect", {"class": "dot", "x": left - 2.6, "y": top - 2.6, "width": 5.2, "height": 5.2})
    if style == "diamonds":
        corners = [(left, top - 3.8), (left + 3.8, top), (left, top + 3.8), (left - 3.8, top)]
        return tag("polygon", {"class": "dot", "points": " ".join(f"{number(a)},{number(b)}" for a, b in corners)})
    return tag("circle", {"class": "dot", "cx": left, "cy": top, "r": 2.9})


def _ends(shown: Sequence[Series], x: _Scale, y: _Scale) -> list[Html]:
    """The words beside the last points, moved apart where they would cover each other."""
    ends = sorted((y(each.points[-1][1]), x(each.points[-1][0]), each.end) for each in shown if each.end)
    parts, above = [], -math.inf
    for top, left, word in ends:
        above = max(top + 4, above + 13)
        parts.append(_text(word, left + 7, above, "start", "end"))
    return parts


def _legend(shown: Sequence[Series]) -> Html:
    parts, left = [], float(WIDTH - _RIGHT + 40)
    for series in reversed(shown):
        left -= _LETTER * len(series.name) + 30
        sample = [_line("line", left, 12, left + 18, 12)]
        if series.style != "thin":
            sample.append(_symbol(series.style, left + 9, 12))
        parts.append(tag("g", {"class": series.style}, *sample, _text(series.name, left + 22, 16, "start")))
    return joined(parts)


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Html:
    return tag("line", {"class": kind, "x1": x1, "y1": y1, "x2": x2, "y2": y2})


def _text(words: str, x: float, y: float, anchor: str, kind: str | None = None) -> Html:
    return tag("text", {"class": kind, "x": x, "y": y, "text-anchor": anchor}, words)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"
