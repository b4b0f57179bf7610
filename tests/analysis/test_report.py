"""The report of a run: its numbers against counting by hand, what its network is, and the command behind it."""

import io
import re
import shlex
import shutil
import xml.etree.ElementTree as ET
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from alexnet_mp import ConfigurationError, build_model, load_network
from alexnet_mp.analysis.report.checkpoint_analysis import CheckpointAnalysis, Predictions
from alexnet_mp.analysis.report.folder import read_folder
from alexnet_mp.analysis.report.page import as_html
from alexnet_mp.analysis.report.words import layers_in_words, network_in_words
from alexnet_mp.commands import report
from alexnet_mp.common.cli import compose
from alexnet_mp.data.load import digits
from alexnet_mp.training.validation import Errors, Evaluation
from tests.support.checkpoints import narrow_network
from tests.support.reports import BATCH, DIVISOR, FORWARD, WEIGHTS, parsed, part, rows, terms, text_of, written
from tests.support.runs import evaluate, make_run


def test_the_numbers_of_the_run_are_on_the_page(page: ET.Element) -> None:
    known = terms(page)
    assert (known["top-1 error"], known["top-5 error"]) == ("40.00 %", "4.00 %")
    # By hand: conv1 2x3x9+2, conv2 2x2x25+2, conv3 2x4x9+2, conv4 and conv5 2x2x9+2, fc6 and fc7 2x4+2, all twice; fc8.
    assert known["parameters"] == f"{2 * (56 + 102 + 74 + 38 + 38 + 10 + 10 + 20) + 10:,}"
    assert known["images a second"] == "100"
    assert known["State"] == "finished after 3 epochs"
    assert known["Looked at here"] == "step-000000030, epoch 3, step 30"
    assert "mistakes 40.00 % of the held-out images" in text_of(page)
    assert "The lowest was 30.00 %, after epoch 2" in text_of(part(page, "learning"))
    assert "v ← 0.9 v − 0.0005 ε w − ε g and w ← w + v" in known["Update"]
    assert "Not on this page" not in text_of(page)
    *_, whole = part(page, "end").iter("pre")
    assert yaml.safe_load("".join(whole.itertext()))["experiment_name"] == "digits"


def test_the_page_says_which_command_makes_it_again(page: ET.Element, finished: Path) -> None:
    (foot,) = page.iter("footer")
    code = [text_of(each) for each in foot.iter("code")]
    program, script, *overrides = shlex.split(code[1])
    assert (program, script) == ("python", "launch/report.py")
    report.run(compose("report", overrides))
    assert text_of(parsed((finished / "report.html").read_text(encoding="utf-8"))) == text_of(page)


def test_the_crossing_is_what_the_table_of_the_network_says(page: ET.Element) -> None:
    found = {row[0]: row[1:4] for row in rows(part(page, "throughput"))}
    for layer, floats in FORWARD.items():
        forward, backward = floats * 4 * BATCH, 0 if layer == "fc8" else floats * 4 * BATCH
        assert found[layer] == [f"{forward:,}", f"{backward:,}", f"{forward + backward:,}"]
    assert "The run counted 13,824 bytes a step, the same." in text_of(part(page, "throughput"))


def predictions() -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax [360, 10] of the images held out, by a plain forward of the same weights, and their labels."""
    data = digits((3, 16, 16))
    images = data.splits["validation"]
    pixels = torch.from_numpy(images.pixels.astype("float32"))  # type: ignore[attr-defined]
    mean = torch.from_numpy(data.statistics.mean_image).float()
    with torch.no_grad():
        logits = build_model(narrow_network(), seed=WEIGHTS).eval()(((pixels - mean) / DIVISOR).permute(0, 3, 1, 2))
    return logits.softmax(dim=1), torch.from_numpy(images.labels)


def test_the_confusions_are_those_of_counting_by_hand(page: ET.Element) -> None:
    chances, labels = predictions()
    counts = [[0] * 10 for _ in range(10)]
    for label, guess in zip(labels.tolist(), chances.argmax(dim=1).tolist(), strict=True):
        counts[label][guess] += 1
    (_, *found) = rows(next(part(page, "confusion").iter("table")))
    assert [[int(cell or 0) for cell in row[1:]] for row in found] == counts
    wrong = 360 - sum(counts[i][i] for i in range(10))
    words = text_of(part(page, "confusion"))
    assert words.find("All 360 images of digits, split validation") >= 0
    assert f"top-1 error {100 * wrong / 360:.2f} %" in words


def test_examples_have_the_five_most_probable_classes_with_the_label_marked(page: ET.Element) -> None:
    chances, labels = predictions()
    examples = [each for each in part(page, "examples").iter("figure") if each.get("class") == "example"]
    assert len(examples) == 16
    for place, example in enumerate(examples):
        image = next(example.iter("img")).attrib["alt"]
        number = int(re.findall(r"Image (\d+) of validation", image)[0])
        top = chances[number].topk(5)
        names = [text_of(each) for each in example.iter("span") if each.get("class") == "name"]
        marks = [f"✓ {each}" if each == int(labels[number]) else str(each) for each in top.indices.tolist()]
        assert names == marks
        shown = [
            int(text_of(each).removesuffix(" %")) for each in example.iter("span") if each.get("class") == "chance"
        ]
        assert shown == pytest.approx((100 * top.values).tolist(), abs=0.51)
        assert (top.indices[0] == labels[number]) == (place >= 8)  # wrong ones come first


def test_a_bound_on_the_images_is_kept_and_told(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    report.run(compose("report", [f"run_dir={finished}", "images=50", "examples=1", f"out={out}"]))
    found = parsed(out.read_text(encoding="utf-8"))
    assert "50 of the 360 images of digits, split validation, chosen by a keyed draw" in text_of(found)
    (_, *counts) = rows(next(part(found, "confusion").iter("table")))
    assert sum(int(cell or 0) for row in counts for cell in row[1:]) == 50
    assert len([each for each in found.iter("figure") if each.get("class") == "example"]) == 2


def test_falls_of_the_learning_rate_are_marked_where_they_were(page: ET.Element) -> None:
    for chart in list(part(page, "learning").iter("svg"))[:2]:
        (mark,) = [each for each in chart.iter("g") if each.get("class") == "mark"]
        line = next(mark.iter("line"))
        # Epoch 2 of 3, between the axis at 46 and the end at 346 of the drawing.
        assert float(line.attrib["x1"]) == pytest.approx(46 + 300 * 2 / 3)
        assert text_of(mark) == "ε 0.002"
    assert "to 0.002 after epoch 2." in text_of(part(page, "learning"))


def test_numbers_stand_beside_the_published_ones(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    evaluate(run, "validation-10views", 10, 0.19, ["step-000000120"])
    found = {(row[0], row[2]): row[4:] for row in rows(part(written(run), "published")) if len(row) == 7}
    assert found["local response normalization, trained for 10 epochs", "top-1 accuracy, %"] == [
        "71.25",
        "70.00",
        "−1.25",
    ]
    assert found["the same without normalization", "top-1 error, %"] == ["13.00", "20.00", "+7.00"]


def test_kernels_of_gray_images_have_no_colors_to_compare(page: ET.Element, finished: Path) -> None:
    words = text_of(part(page, "kernels"))
    assert "The images are gray" in words
    assert "olorful" not in words
    assert "p =" not in words
    towers = torch.randn(2, 8, 3, 5, 5, generator=torch.Generator().manual_seed(0)).unbind()
    colored = parsed(as_html(read_folder(finished), CheckpointAnalysis(kernels=towers), {}, "python"))
    assert "noise has 2/3. A kernel of tower" in text_of(part(colored, "kernels"))
    assert "by permutation" in text_of(part(colored, "kernels"))
    assert "median colorfulness 0.6" in text_of(part(colored, "kernels"))


def test_the_median_of_an_even_number_of_kernels_is_between_the_two_in_the_middle(finished: Path) -> None:
    gray, off_gray = torch.ones(3, 5, 5), torch.tensor([1.0, -1.0, 0.0])[:, None, None].expand(3, 5, 5)
    towers = [torch.stack([gray, off_gray])] * 2  # colorfulness 0 and 1
    made = parsed(as_html(read_folder(finished), CheckpointAnalysis(kernels=towers), {}, "python"))
    assert "Tower 1: 2 kernels of 5×5, median colorfulness 0.50." in text_of(part(made, "kernels"))


def test_between_kernels_the_page_shows_through_in_both_themes(page: ET.Element) -> None:
    for image in part(page, "kernels").iter("img"):
        pixels = np.asarray(Image.open(io.BytesIO(b64decode(image.attrib["src"].partition(",")[2]))))
        assert pixels.shape[2] == 4
        assert (pixels[0, 0, 3], pixels[:, :, 3].min()) == (255, 0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "None was taken for another class."),
        ({(1, 8): 1}, "Most often class 1 was taken for class 8: 1 image, 16.67 %"),
        ({(1, 8): 2, (6, 0): 1}, "Most often class 1 was taken for class 8: 2 images, 28.57 %"),
        ({(1, 8): 1, (6, 0): 1}, "No pair of classes stands out: 2 were confused in 1 image each"),
    ],
)
def test_a_pair_is_the_most_confused_only_if_no_other_is_as_often(
    wrong: dict[tuple[int, int], int], said: str, finished: Path
) -> None:
    confusions = torch.eye(10, dtype=torch.long) * 5
    for pair, count in wrong.items():
        confusions[pair] = count
    images = int(confusions.sum())
    evaluation = Evaluation(Errors(1.0, 0.1, 0.0, images), confusions, torch.zeros(10, dtype=torch.long))
    names = tuple(f"class {i}" for i in range(10))
    predicted = Predictions(evaluation, names, "pictures", "validation", images, (), ())
    root = parsed(as_html(read_folder(finished), CheckpointAnalysis(predictions=predicted), {}, "python"))
    assert said in text_of(part(root, "confusion"))


def test_many_classes_have_their_most_confused_pairs(finished: Path) -> None:
    confusions = torch.eye(30, dtype=torch.long) * 5
    confusions[3, 4], confusions[7, 2] = 5, 2
    evaluation = Evaluation(Errors(1.0, 7 / 157, 0.0, 157), confusions, torch.zeros(30, dtype=torch.long))
    predicted = Predictions(evaluation, tuple(f"class {i}" for i in range(30)), "pictures", "validation", 157, (), ())
    root = parsed(as_html(read_folder(finished), CheckpointAnalysis(predictions=predicted), {}, "python"))
    (pairs, *_) = part(root, "confusion").iter("table")
    assert [row[:4] for row in rows(pairs)][1:] == [
        ["class 3", "class 4", "5", "50.00 %"],
        ["class 7", "class 2", "2", "28.57 %"],
    ]
    assert "None of the images was wrong." in text_of(part(root, "examples"))


def test_a_network_of_one_tower_has_no_crossing(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    shutil.rmtree(run / "checkpoints")
    configuration = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**configuration, "towers": 1}, sort_keys=False))
    words = text_of(part(written(run), "throughput"))
    assert "nothing crosses" in words


def test_a_network_with_branches_is_told_row_by_row_and_its_classifiers_of_training_apart() -> None:
    network = load_network("googlenet")
    told = {layer.name: layer for layer in layers_in_words(network)}
    # 7x7x3 into 64, 3x3x64 into 192, and the six convolutions of inception 3a (arXiv 1409.4842, table 1), with biases.
    assert told["conv1"].parameters == 7 * 7 * 3 * 64 + 64
    assert told["conv2"].parameters == 9 * 64 * 192 + 192
    of_3a = [(1, 192, 64), (1, 192, 96), (9, 96, 128), (1, 192, 16), (25, 16, 32), (1, 192, 32)]
    assert told["inception3a"].parameters == sum((window * maps + 1) * kernels for window, maps, kernels in of_3a)
    assert (told["inception3a"].what, told["inception3a"].output) == ("4 branches, joined", "256 × 28 × 28")
    assert told["inception4a"].output == told["inception4b"].output == "512 × 14 × 14"
    assert sum(layer.parameters for layer in told.values()) == 6_998_552 + 6_379_728
    assert "6,998,552 parameters and" in network_in_words(network)
    assert "6,379,728 parameters in classifiers of training alone" in network_in_words(network)


def test_a_count_that_cannot_be_is_refused(finished: Path) -> None:
    with pytest.raises(ConfigurationError, match="images is 0, must be positive"):
        written(finished, "images=0")
