"""What a report's page is made of: thinned curves, ticks, charts, and escaped values."""

import re

import pytest
from jinja2 import UndefinedError

from alexnet_mp.analysis.report.chart import Mark, Series, line_chart, log_ticks, nice_ticks
from alexnet_mp.analysis.report.curves import thinned
from alexnet_mp.analysis.report.template import amount, duration, render


def test_neighbors_become_their_median_and_range() -> None:
    found = thinned([(float(x), float(y)) for x, y in enumerate([5, 1, 3, 9, 8, 7, 2])], most=3)
    assert found.points == ((1, 3), (4, 8), (6, 2))
    assert found.band == ((1, 1, 5), (4, 7, 9), (6, 2, 2))
    assert found.at_each == 3
    assert thinned([(1.0, 2.0)]).band == ()


def test_ticks_are_round_numbers() -> None:
    assert nice_ticks(0, 20) == [0, 5, 10, 15, 20]
    assert nice_ticks(0, 0.43) == [0, 0.1, 0.2, 0.3, 0.4]
    assert nice_ticks(0, 6) == [0, 2, 4, 6]
    assert log_ticks(0.08, 3) == pytest.approx([0.1, 0.2, 0.5, 1, 2])
    assert log_ticks(0.001, 300) == pytest.approx([0.001, 0.01, 0.1, 1, 10, 100])


@pytest.mark.parametrize("values", [[], [0.0], [-1.0, -2.0], [1e14], [5.0, 5.0], [1e-12, 1.0]])
@pytest.mark.parametrize("log", [True, False])
def test_a_chart_bears_any_values(values: list[float], log: bool) -> None:
    points = [(float(x), y) for x, y in enumerate(values)]
    drawn = line_chart("", [Series("a", points, "dots", "end")], [Mark(0, "ε")] * 12, "epoch", "y", log=log)
    numbers = re.findall(r' (?:x|y|x1|y1|cx|cy|points)="([^"]*)"', drawn)
    assert all(re.fullmatch(r"[-\d., ]*", each) for each in numbers), numbers


def test_words_in_a_chart_are_escaped_and_printable() -> None:
    drawn = line_chart("\"'<>&\x1b", [Series("<b>", [(1.0, 0.1 + 0.2)], "dots", "\n")], [], "x", "y")
    assert 'aria-label="&#34;&#39;&lt;&gt;&amp;\\x1b"' in drawn
    assert "<b>" not in drawn
    assert ">&lt;b&gt;</text>" in drawn
    assert ">\\n</text>" in drawn


def test_a_template_that_lacks_a_value_is_an_error_and_not_a_gap() -> None:
    with pytest.raises(UndefinedError, match="size"):
        render("chart.svg.j2", description="")


def test_numbers_of_bytes_and_seconds_have_a_unit_that_reads_well() -> None:
    assert [amount(789), amount(788_992), amount(3.2e6), amount(2e12)] == [
        *("789\u00a0B", "789.0\u00a0kB"),
        *("3.2\u00a0MB", "2,000.0\u00a0GB"),
    ]
    assert [duration(32.4), duration(600), duration(36000)] == ["32\u00a0s", "10\u00a0min", "10.0\u00a0h"]
