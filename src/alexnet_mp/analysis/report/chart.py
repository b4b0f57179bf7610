"""Draws a line chart as SVG in the colors of the page, so that it is legible in both themes and in print."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from alexnet_mp.analysis.report.template import render

WIDTH, HEIGHT = 400, 270  # of the drawing; the page scales it, to 320 px on a telephone
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, WIDTH - 54, 34, HEIGHT - 40  # the edges of the area inside the axes
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
    """Maps values to places on the drawing."""

    low: float
    high: float
    first: float
    last: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(each) if self.is_log else each for each in (self.low, self.high, value))
        return self.first + (at - low) / (high - low) * (self.last - self.first)


@dataclass(frozen=True)
class _Word:
    """Text on the drawing, at the place of its `anchor`, which is SVG's `text-anchor`."""

    text: str
    x: float
    y: float
    anchor: Literal["start", "middle", "end"] = "start"


def line_chart(
    description: str,
    series: Sequence[Series],
    marks: Sequence[Mark],
    x_label: str,
    y_label: str,
    last_x: float = 0,
    log: bool = False,
) -> Markup:
    """The chart as SVG; `description` is its text for a reader who cannot see it.

    The x axis goes from 0 to the last point, at least to `last_x`. With `log`, the y axis is logarithmic if all
    values are positive. Series without points are left out.
    """
    shown = [each for each in series if each.points]
    values = [y for each in shown for _, *heights in (*each.points, *each.band) for y in heights]
    x = _Scale(0, max([x for each in shown for x, _ in each.points] + [last_x, 1e-9]), _LEFT, _RIGHT)
    y = _y_scale(values or [0, 1], log and min(values, default=0) > 0)
    y_ticks = log_ticks(y.low, y.high) if y.is_log else nice_ticks(y.low, y.high)
    x_ticks = [tick for tick in nice_ticks(x.low, x.high) if tick == int(tick)]  # epochs and steps are whole
    y_title = _Word(y_label, _LEFT - 7, _TOP - 10, "start" if len(y_label) > 6 else "end")
    return render(
        "chart.svg.j2",
        description=description,
        size=(WIDTH, HEIGHT),
        area={"left": _LEFT, "right": _RIGHT, "top": _TOP, "bottom": _BOTTOM},
        y_ticks=[_Word(_short(tick), _LEFT - 7, y(tick), "end") for tick in y_ticks],
        x_ticks=[_Word(_short(tick), x(tick), _BOTTOM + 17, "middle") for tick in x_ticks],
        titles=[_Word(x_label, (_LEFT + _RIGHT) / 2, HEIGHT - 5, "middle"), y_title],
        marks=_marks(marks[:_MOST_MARKS], x),
        curves=[(each.style, [(x(at), y(to)) for at, to in each.points], _outline(each, x, y)) for each in shown],
        ends=_ends(shown, x, y),
        legend=_legend(shown),
    )


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from `low` to `high`, at most `most` of them, 1, 2 or 5 times a power of ten apart."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * each for each in (1, 2, 5, 10, 20) if (high - low) / (power * each) <= most - 1)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between the two, over more than two decades the powers alone; or round numbers."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low <= 100 else (1,)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    shown = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    return shown if len(shown) > 1 else nice_ticks(low, high)


def _y_scale(values: Sequence[float], is_log: bool) -> _Scale:
    low, high = min(values), max(values)
    if is_log:
        return _Scale(low / 1.15, high * 1.15, _BOTTOM, _TOP, True)
    low = min(low, 0.0)
    high = high if high > low else low + 1
    return _Scale(low, high + 0.08 * (high - low), _BOTTOM, _TOP)


def _marks(marks: Sequence[Mark], x: _Scale) -> list[tuple[float, _Word]]:
    """Places of the dashed lines, with their words: on the right if they fit before the next, else on the left."""
    places = [x(mark.x) for mark in marks]
    words = []
    for place, (mark, at, end) in enumerate(zip(marks, places, [*places, WIDTH][1:], strict=True)):
        if at + _LETTER * len(mark.label) + 6 < end:
            words.append(_Word(mark.label, at + 4, _TOP + 11))
        else:
            words.append(_Word(mark.label, at - 4, _TOP + 11 + 14 * (place % 3), "end"))
    return list(zip(places, words, strict=True))


def _outline(series: Series, x: _Scale, y: _Scale) -> list[tuple[float, float]]:
    """The corners of the band around a curve: its upper side, then its lower side backwards."""
    upper = [(x(at), y(high)) for at, _, high in series.band]
    return upper + [(x(at), y(low)) for at, low, _ in reversed(series.band)]


def _ends(shown: Sequence[Series], x: _Scale, y: _Scale) -> list[_Word]:
    """The words beside the last points, moved up if they would cover each other or what stands below the axis."""
    ends = sorted(
        ((y(each.points[-1][1]), x(each.points[-1][0]), each.end) for each in shown if each.end), reverse=True
    )
    words: list[_Word] = []
    for top, left, word in ends:
        words.append(_Word(word, left + 7, min([top + 4, _BOTTOM, *(below.y - 15 for below in words[-1:])])))
    return words


def _legend(shown: Sequence[Series]) -> list[tuple[Style, _Word]]:
    """Styles and names of the curves, from the right to the left."""
    entries, left = [], float(_RIGHT + 40)
    for series in reversed(shown):
        left -= _LETTER * len(series.name) + 30
        entries.append((series.style, _Word(series.name, left + 22, 16)))
    return entries


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"
