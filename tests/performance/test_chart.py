"""The benchmark's chart: every word can be read where it is shown, 830 pixels wide."""

import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from alexnet_mp.performance.benchmark.chart import draw_variants
from alexnet_mp.performance.benchmark.variants import VARIANTS

PIXELS = 830


PARTS = {"exposed_crossing": 0.02, "skew": 0.03, "optimizer": 0.1, "forward_and_backward": 1.5}
VALUES = {
    "images_per_second": 40.0,
    "images_per_second_of_rounds": [38.0, 40.0, 43.0],
    "fraction_of_bound": 0.8,
    "peak_memory_bytes": 1.9e9,
    "processes": 2,
    "step_seconds": {"forward": 0.5, "backward": 1.0, **PARTS},
}
SETUP = {"variants": dict.fromkeys(VARIANTS, VALUES), "matrix_bound_images_per_second": 50.0, "towers": 2}
MACHINE = {"threads": 2, "device": "CPU", "versions": {"torch": "2"}}
REPORT = {**SETUP, "batch_size": 64, "network": "paper", "image": [3, 224, 224], "rounds": 5, "machine": MACHINE}


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn, in the place of their files."""
    figures: list[Figure] = []
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *_, **__: (figure.draw_without_rendering(), figures.append(figure))
    )
    return figures


def test_three_batch_sizes_are_curves_that_end_where_a_variant_does(tmp_path: Path, kept: list[Figure]) -> None:
    def at(batch_size: int, *names: str) -> dict[str, Any]:
        values = {**VALUES, "images_per_second": batch_size / 2, "peak_memory_bytes": batch_size * 1e6}
        return {**REPORT, "batch_size": batch_size, "variants": dict.fromkeys(names, values)}

    sweep = [at(128, "split_two_processes"), at(32, "split_two_processes", "single_stock")]
    draw_variants({**REPORT, "sweep": [*sweep, at(64, "split_two_processes", "single_stock")]}, tmp_path / "a.png")
    speed, memory = kept[0].axes
    drawn = [[list(zip(*line.get_data(), strict=True)) for line in axes.get_lines()] for axes in (speed, memory)]
    assert drawn[0] == [[(32, 16), (64, 32), (128, 64)], [(32, 16), (64, 32)], [(32, 50), (64, 50), (128, 50)]]
    assert drawn[1] == [[(32, 32), (64, 64), (128, 128)], [(32, 32), (64, 64)]]
    assert [text.get_text() for text in kept[0].legends[0].get_texts()] == [
        "split two processes",
        "single stock",
        "matrix products alone",
    ]


def test_words_are_large_enough_within_the_picture_and_without_underscores(tmp_path: Path, kept: list[Figure]) -> None:
    draw_variants(
        {**REPORT, "sweep": [{**REPORT}, {**REPORT, "matrix_bound_images_per_second": None}]}, tmp_path / "a.png"
    )
    (figure,) = kept
    words = [each for each in figure.findobj(Text) if re.search("[a-z]", each.get_text()) and each.get_visible()]
    assert len([each for each in words if each.get_text() == "split two processes"]) == 4
    assert [each.get_text() for each in words if "_" in each.get_text()] == []
    points = PIXELS / figure.get_figwidth() / 72  # pixels of the page a point
    assert min(each.get_fontsize() for each in words) * points >= 11
    width, height = figure.canvas.get_width_height()
    for each in words:
        box = each.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, each.get_text()
