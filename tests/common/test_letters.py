"""Charts with names in any script find an installed font, or show key or number; none warns of a glyph."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text
from PIL import Image

from alexnet_mp.analysis.evaluate.classification import Classified, draw_photographs
from alexnet_mp.analysis.evaluate.folder import write_results
from alexnet_mp.analysis.figures.nearest_neighbors import (
    NearestNeighbors,
    Neighbor,
    QueryImage,
    draw_nearest_neighbors,
)
from alexnet_mp.common import letters
from alexnet_mp.common.letters import drawable_names, save_chart
from alexnet_mp.training.validation import Errors, Evaluation
from tests.support.processes import CHECKOUT

LACKING = "고양이개猫犬"


def square() -> object:
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((900, 0), (900, 800), (100, 800)):
        pen.lineTo(corner)
    pen.closePath()
    return pen.glyph()


@pytest.fixture(autouse=True)
def no_font_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fonts that are on every machine with matplotlib, and no others; a warning is an error."""
    monkeypatch.setattr(fontManager, "ttflist", [font for font in fontManager.ttflist if "DejaVu" in font.name])
    letters._family.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    letters._family.cache_clear()


@pytest.fixture
def korean_font(tmp_path: Path, no_font_of_this_machine: None) -> str:
    """Installs a font whose every Korean letter is a square; returns its family."""
    korean = sorted(set("고양이개"))
    glyphs = [".notdef", *(f"uni{ord(letter):04X}" for letter in korean)]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(glyphs)
    font.setupCharacterMap({ord(letter): f"uni{ord(letter):04X}" for letter in korean})
    font.setupGlyf({glyph: square() for glyph in glyphs})
    font.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 100)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Test Nanum", "styleName": "Regular"})
    font.setupOS2(sTypoAscender=800, sTypoDescender=-200, usWinAscent=800, usWinDescent=200)
    font.setupPost()
    font.save(tmp_path / "nanum.ttf")
    fontManager.addfont(tmp_path / "nanum.ttf")
    return "Test Nanum"


NAMES = {
    "ascii": ("cat", "cat"),
    "accents and Greek": ("Été, ελιά", "Été, ελιά"),
    "Cyrillic": ("кошка", "кошка"),
    "Korean": ("고양이", "class 0"),
    "Japanese": ("猫", "class 0"),
    "Korean in a sentence": ("a 고양이", "class 0"),
    "a key and Korean words": ("n02123045 (고양이)", "n02123045"),
    "a key and words": ("n02123045 (tabby)", "n02123045 (tabby)"),
    "a Korean key": ("고양이 (cat)", "class 0"),
    "nothing": ("", ""),
}


@pytest.mark.parametrize("name, drawn", NAMES.values(), ids=NAMES)
def test_a_name_that_no_font_has_is_its_key_or_its_number(name: str, drawn: str) -> None:
    assert drawable_names([name]) == [drawn]


def test_with_a_font_names_stay_and_only_others_are_numbers(korean_font: str) -> None:
    assert drawable_names(["고양이", "猫", "n1 (개)", "개와"]) == ["고양이", "class 1", "n1 (개)", "class 3"]


@pytest.mark.parametrize("place", ["title", "tick", "text", "legend"])
def test_every_text_of_a_chart_gets_the_font(place: str, korean_font: str, tmp_path: Path) -> None:
    def chart(word: str) -> Figure:
        figure = Figure()
        axes = figure.subplots()
        axes.plot([0, 1], label=word if place == "legend" else "line")
        axes.legend()
        if place == "tick":
            axes.set_yticks([0, 1], [word, "cat"])
        elif place == "title":
            figure.suptitle(word)
        else:
            axes.text(0.5, 0.5, word if place == "text" else "word")
        return figure

    figure = chart("고양")
    save_chart(figure, tmp_path / "a.png", 60)
    families = [text.get_fontfamily() for text in figure.findobj(Text) if text.get_text() == "고양"]
    assert families
    assert all(each == ["sans-serif", korean_font] for each in families)
    save_chart(chart("ㅁㅁ"), tmp_path / "b.png", 60)  # no font has these
    first, second = (np.asarray(Image.open(tmp_path / name).convert("L")) for name in ("a.png", "b.png"))
    assert (first != second).any()  # a square is not the box of a missing glyph


def test_no_chart_is_saved_but_by_the_one_function() -> None:
    found = [path.name for path in (CHECKOUT / "src").rglob("*.py") if ".savefig(" in path.read_text("utf-8")]
    assert found == ["letters.py"]


@pytest.mark.parametrize("names", [["고양이", "개", "猫"], ["n1 (고양이)", "n2 (개)", "cat"]], ids=["names", "keys"])
def test_the_charts_of_an_evaluation_have_names_in_any_script(names: list[str], tmp_path: Path) -> None:
    confusions = torch.tensor([[1, 1, 0], [0, 2, 0], [0, 1, 1]])
    evaluation = Evaluation(Errors(1.0, 0.2, 0.0, 6), confusions, torch.zeros(3, dtype=torch.long))
    summary = {"data": {"name": "사진"}, "split": "test", "views": 1, "top1_error": 0.2}
    write_results(tmp_path, summary, evaluation, names, 5)
    assert (tmp_path / "classes.png").exists()
    assert names[0] in (tmp_path / "classes.csv").read_text("utf-8")


def test_photographs_and_neighbors_are_drawn_with_names_in_any_script(tmp_path: Path) -> None:
    pixels, names = np.zeros((4, 4, 3), np.uint8), ("고양이", "개")
    draw_photographs(
        [Classified(tmp_path / "사진.jpg", pixels, names, (0.5, 0.5), tuple(drawable_names(names)))], tmp_path / "a.png"
    )
    near = Neighbor(3, "개", 1.0, torch.from_numpy(pixels))
    example = QueryImage(1, "고양이", torch.from_numpy(pixels), names, (0.5, 0.5), (near,))
    draw_nearest_neighbors(NearestNeighbors(names, "test", 9, (example,)), tmp_path / "b.png", "사진")
    assert {path.name for path in tmp_path.glob("*.png")} == {"a.png", "b.png"}
    assert json.dumps(names)
