"""What a report's page is made of: a recipe in words, thinned curves, ticks, charts, and escaped values."""

import re
from typing import Any

import pytest
from jinja2 import UndefinedError

from alexnet_mp.analysis.report.chart import Mark, Series, line_chart, log_ticks, nice_ticks
from alexnet_mp.analysis.report.template import amount, duration, render
from alexnet_mp.analysis.report.training_sections import thinned
from alexnet_mp.common.cli import compose
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.training.recipe import Recipe


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
    assert log_ticks(1.5, 2.6) == pytest.approx([1.5, 2, 2.5])  # 2 alone would say nothing
    assert log_ticks(0.001, 300) == pytest.approx([0.001, 0.01, 0.1, 1, 10, 100])


@pytest.mark.parametrize("values", [[], [0.0], [-1.0, -2.0], [1e14], [5.0, 5.0], [1e-12, 1.0]])
@pytest.mark.parametrize("log", [True, False])
def test_a_chart_bears_any_values(values: list[float], log: bool) -> None:
    points = [(float(x), y) for x, y in enumerate(values)]
    drawn = line_chart("", [Series("a", points, "dots", "end")], [Mark(0, "ε")] * 12, "epoch", "y", log=log)
    numbers = re.findall(r' (?:x|y|x1|y1|cx|cy|points)="([^"]*)"', drawn)
    assert all(re.fullmatch(r"[-\d., ]*", each) for each in numbers), numbers


def test_words_beside_the_ends_of_curves_cover_neither_each_other_nor_the_axis() -> None:
    series = [
        Series(name, [(0.0, 1.0), (9.0, end)], "dots", name) for name, end in (("a", 0.0), ("b", 0.01), ("c", 1.0))
    ]
    drawn = line_chart("", series, [], "epoch", "error")
    places = {name: float(y) for y, name in re.findall(r'<text class="end"[^>]* y="([^"]*)"[^>]*>(\w)<', drawn)}
    (axis,) = {float(y) for y in re.findall(r'<line class="axis"[^>]* y1="([^"]*)"', drawn)}
    assert places["a"] <= axis
    assert places["a"] - places["b"] >= 13
    assert places["c"] < places["b"] - 100


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


FIRST_RECIPE: dict[str, Any] = {
    "name": "first",
    "batch_size": 128,
    "epochs": 1,
    "momentum": 0.9,
    "weights": {"learning_rate": 0.01, "weight_decay": 0.0005},
    "biases": {"learning_rate": 0.02, "weight_decay": 0.001},
}


def recipe_terms(**changes: Any) -> dict[str, str]:
    """The recipe in words: its headings, and what stands beside each."""
    recipe = from_mapping(Recipe, {**compose("train", [])["recipe"], **FIRST_RECIPE, **changes}, "recipe")
    found = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", render("recipe.html.j2", recipe=recipe), re.DOTALL)
    return {name: " ".join(words.split()) for name, words in found}


def test_all_of_a_recipe_is_told_in_words() -> None:
    milestones = [
        {"after_epoch": 5, "learning_rate": 0.001, "kind": "weights", "layers": ["conv1", "fc<6>"]},
        {"after_epoch": 7, "learning_rate": 0},
    ]
    augmentation = {
        "crop": "random",
        "flip": True,
        "shared_by": 8,
        "color": {"std": 0.1, "eigenvalues": "root", "until_epoch": 4},
    }
    own = {"learning_rate": 0.001, "weight_decay": 0.004}
    told = recipe_terms(
        schedule={"milestones": milestones},
        augmentation=augmentation,
        order="fixed",
        input={"pixel_divisor": 2, "mean": "center"},
        layers={"conv1": {"weights": own, "biases": own}, "fc6": {"biases": own}},
    )
    rates = "ε = 0.001 and weight decay 0.004"
    assert told == {
        "Update": "After every 128 images, v ← 0.9 v − 0.0005 ε w − ε g and w ← w + v (paper §5), g the mean gradient; "
        "biases decay by 0.001.",
        "Learning rate": "ε = 0.01 for weights and 0.02 for biases; 0.001 for weights in conv1 and fc&lt;6&gt; after "
        "epoch 5; 0 (frozen) after epoch 7.",
        "Length": "1 epoch; the images are in the order of the data, always.",
        "Input": "Pixels of 0 to 255 less the center of the mean image, whatever the crop, divided by 2.",
        "Augmentation": "Random crops, mirrored half of the time, shared by 8 neighbors, with color noise of 0.1 along "
        "the principal colors until epoch 4.",
        "Rates of single layers": f"conv1 has for its weights {rates}; conv1 has for its biases {rates}; "
        f"fc6 has for its biases {rates}.",
    }


def test_a_plateau_and_a_rate_that_stays_are_told_in_words() -> None:
    plateau = {"factor": 0.1, "patience": 1, "drops": 3}
    assert recipe_terms(schedule={"plateau": plateau}, biases=FIRST_RECIPE["weights"])["Learning rate"] == (
        "ε = 0.01; times 0.1 when the validation error has not fallen for 1 epoch, at most 3 times."
    )
    told = recipe_terms(schedule={}, biases={"learning_rate": 0.01, "weight_decay": 0.0})
    assert told["Learning rate"] == "ε = 0.01, from the first step to the last."
    assert told["Update"].endswith("g the mean gradient; biases do not decay.")
