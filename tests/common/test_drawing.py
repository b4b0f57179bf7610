"""The style of all pictures: 200 dots an inch, names as they are, and nothing of it left behind."""

from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure
from PIL import Image

from alexnet_mp.common.drawing import drawing, name_bars
from tests.support.processes import CHECKOUT


def test_a_drawing_becomes_a_png_of_200_dots_an_inch_and_leaves_the_style_of_others_alone(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    with drawing(tmp_path / "picture.part", 2, 1.5) as figure:
        axes = figure.subplots()
        assert not axes.spines["top"].get_visible()
    assert dict(matplotlib.rcParams) == before
    picture = Image.open(tmp_path / "picture.part")
    assert (picture.format, picture.size) == ("PNG", (400, 300))


def test_a_name_with_dollar_signs_is_no_formula(tmp_path: Path) -> None:
    name = r"$\frac{$"  # matplotlib raises for it if it is taken for one
    with drawing(tmp_path / "a.png", 3, 2, name) as figure:
        axes = figure.subplots()
        axes.barh([0], [1], label=name)
        axes.legend()
        name_bars(axes, [name])
    assert (tmp_path / "a.png").exists()


def test_a_drawing_that_fails_leaves_no_picture(tmp_path: Path) -> None:
    with pytest.raises(KeyError), drawing(tmp_path / "a.png", 3, 2):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_bars_are_named_from_the_top_with_room_above() -> None:
    axes = Figure().subplots()
    name_bars(axes, ["first", "second", "last"], [0, 1, 5], above=1.1)
    assert [each.get_text() for each in axes.get_yticklabels()] == ["first", "second", "last"]
    assert axes.get_ylim() == (5.6, -1.1)


def test_every_picture_has_this_style() -> None:
    package = CHECKOUT / "src" / "alexnet_mp"
    texts = {path.relative_to(package).as_posix(): path.read_text("utf-8") for path in package.rglob("*.py")}
    assert [name for name, text in texts.items() if ".savefig(" in text] == ["common/letters.py"]
