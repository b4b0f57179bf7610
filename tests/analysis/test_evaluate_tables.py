"""The tables and pictures of an evaluation, for any number of classes."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from alexnet_mp.analysis.evaluate.folder import ClassErrors, class_errors, most_confused
from alexnet_mp.analysis.evaluate.pictures import draw_classes, draw_confusions
from alexnet_mp.training.validation import Errors, Evaluation


def of_many_classes(classes: int) -> tuple[Evaluation, list[str]]:
    """Every class has 50 images; class c gets c % 50 of them wrong, all taken for the next class."""
    confusions = torch.zeros(classes, classes, dtype=torch.long)
    for label in range(classes):
        confusions[label, label] += 50 - label % 50
        confusions[label, (label + 1) % classes] += label % 50
    names = [f"class {label} with $a$ long name, and its synonyms" for label in range(classes)]
    return Evaluation(Errors(0, 0, 0, 50 * classes), confusions, confusions.diagonal() // 2), names


def test_tables_of_many_classes_are_right() -> None:
    evaluation, names = of_many_classes(200)
    classes, pairs = class_errors(evaluation, names), most_confused(evaluation, names)
    assert [each.top1_error for each in classes] == [label % 50 / 50 for label in range(200)]
    # Four classes each have 49, 48, ... 1 images wrong.
    assert [pair.count for pair in pairs] == [count for count in range(49, 0, -1) for _ in range(4)]
    assert [(pair.label, pair.predicted) for pair in pairs[:2]] == [(names[49], names[50]), (names[99], names[100])]
    assert pairs[0].fraction == 49 / 50


def test_a_class_without_images_has_no_error() -> None:
    evaluation = Evaluation(Errors(0, 0, 0, 2), torch.tensor([[1, 1], [0, 0]]), torch.tensor([0, 0]))
    assert class_errors(evaluation, ["a", "b"]) == [ClassErrors("a", 2, 0.5, 0.0), ClassErrors("b", 0, None, None)]


@pytest.mark.parametrize("classes", [1, 20, 31, 1000])
def test_pictures_of_any_number_of_classes_have_a_size_that_can_be_read(classes: int, tmp_path: Path) -> None:
    evaluation, names = of_many_classes(classes)
    draw_classes(class_errors(evaluation, names), tmp_path / "classes.png", "$title")
    pairs = most_confused(evaluation, names)
    draw_confusions(evaluation.confusions, names, pairs, tmp_path / "confusions.png", "$title")
    for name in ("classes.png", "confusions.png"):
        width, height = Image.open(tmp_path / name).size
        assert 300 < width < 2000
        assert 200 < height < 2000
