"""The benchmark's chart: every word can be read where it is shown, 830 pixels wide."""

import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from alexnet_mp.performance.benchmark.chart import draw_variants
from alexnet_mp.performance.benchmark.variants import VARIANTS

PIXELS = 830


def test_words_are_large_enough_within_the_picture_and_without_underscores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {"exposed_crossing": 0.02, "skew": 0.03, "optimizer": 0.1, "forward_and_backward": 1.5}
    values = {
        "images_per_second": 40.0,
        "images_per_second_of_rounds": [38.0, 40.0, 43.0],
        "fraction_of_bound": 0.8,
        "peak_memory_bytes": 1.9e9,
        "processes": 2,
        "step_seconds": {"forward": 0.5, "backward": 1.0, **parts},
    }
    setup = {"variants": dict.fromkeys(VARIANTS, values), "matrix_bound_images_per_second": 50.0, "towers": 2}
    machine = {"threads": 2, "device": "CPU", "versions": {"torch": "2"}}
    report = {**setup, "batch_size": 64, "network": "paper", "image": [3, 224, 224], "rounds": 5, "machine": machine}
    kept: list[Figure] = []
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *_, **__: (figure.draw_without_rendering(), kept.append(figure))
    )
    draw_variants(
        {**report, "sweep": [{**report}, {**report, "matrix_bound_images_per_second": None}]}, tmp_path / "a.png"
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
