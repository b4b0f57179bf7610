"""The report of a run: its numbers against counting by hand, what is missing, hostile names, and the page itself."""

import json
import re
import shlex
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from alexnet_mp import ConfigurationError, build_model, load_network
from alexnet_mp.analysis.report.checkpoint_analysis import CheckpointAnalysis, PredictedImage, Predictions
from alexnet_mp.analysis.report.folder import read_folder
from alexnet_mp.analysis.report.page import as_html
from alexnet_mp.analysis.report.words import layers_in_words, network_in_words
from alexnet_mp.checkpoint.files import save_checkpoint
from alexnet_mp.commands import report
from alexnet_mp.common.cli import compose
from alexnet_mp.data.load import digits
from alexnet_mp.training.validation import Errors, Evaluation
from tests.analysis.test_results import evaluate, make_run
from tests.support.browser import browser_program, opened_page
from tests.support.checkpoints import narrow_network

STEPS, EPOCHS, BATCH, DIVISOR = 10, 3, 64, 64
WEIGHTS = 3  # a seed whose initial weights tell images apart
ERRORS = {1: 0.5, 2: 0.3, 3: 0.4}
# narrow_network: 2 maps of 3x3 into conv3, 2 floats into fc6 and fc7, 10 partial logits that do not return.
FORWARD = {"conv3": 18, "fc6": 2, "fc7": 2, "fc8": 10}
HOSTILE = (
    "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)> http://evil.example/ --> ]]> &lt; \x1b[2J\u202e"
)
VOID = ("meta", "img", "br")


DIGITS: dict[str, Any] = {"source": "digits", "path": None, "verify": True}


def a_run(folder: Path, data: Mapping[str, Any] = DIGITS) -> Path:
    """A finished run of `narrow_network` on digits: three epochs, the learning rate a tenth in the last."""
    network = narrow_network()
    configuration = {**compose("train", ["seed=3", f"recipe.epochs={EPOCHS}"]), "network": network.to_mapping()}
    lines: list[dict[str, Any]] = []
    for epoch in range(1, EPOCHS + 1):
        for step in range((epoch - 1) * STEPS + 1, epoch * STEPS + 1):
            rate = 0.02 if epoch < EPOCHS else 0.002
            speeds = {"learning_rate": rate, "images_per_second": 100.0 + step}
            lines.append({"kind": "train", "step": step, "epoch": epoch, "loss": 3.0 / step, **speeds})
        found = {"loss": 1.0 / epoch, "top1_error": ERRORS[epoch], "top5_error": ERRORS[epoch] / 10}
        lines.append({"kind": "validation", "step": epoch * STEPS, "epoch": epoch, **found})
    make_run(folder, seed=3, experiment="digits", last=ERRORS[EPOCHS])
    summary = {
        **json.loads((folder / "summary.json").read_text()),
        **{"network": network.name, "epochs": EPOCHS, "top5_error": ERRORS[EPOCHS] / 10, "steps": EPOCHS * STEPS},
        **{"crossing_bytes_per_step": 4 * BATCH * (2 * sum(FORWARD.values()) - FORWARD["fc8"]), "batch_size": BATCH},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    about = {
        "data": dict(data),
        "input": {"pixel_divisor": DIVISOR, "mean": "pixel"},
        "class_names": [str(number) for number in range(10)],
        "progress": {"epoch": EPOCHS, "step": EPOCHS * STEPS},
    }
    state = build_model(network, seed=WEIGHTS).state_dict()
    save_checkpoint(folder / "checkpoints" / "step-000000030", state, network, about, timeout_seconds=10)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_run(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture(scope="module")
def page(finished: Path) -> ET.Element:
    """The page of the finished run, with all of its images."""
    return written(finished)


def written(run: Path, *overrides: str) -> ET.Element:
    report.run(compose("report", [f"run_dir={run}", *overrides]))
    return parsed((run / "report.html").read_text(encoding="utf-8"))


def parsed(text: str) -> ET.Element:
    """The page as a tree; raises where an element is not closed in its turn or an attribute is not in quotes."""
    head, _, rest = text.partition("\n")
    assert head == "<!DOCTYPE html>"
    root = ET.fromstring(re.sub(rf"<({'|'.join(VOID)})( [^>]*)>", r"<\1\2/>", rest))
    check(root)
    return root


def check(root: ET.Element) -> None:
    """What holds of every page: nothing from elsewhere, no script, unique ids, texts for pictures, captions."""
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    for element in root.iter():
        assert element.tag in KNOWN, element.tag
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert name not in ("srcset", "action", "xlink:href", "ping", "srcdoc", "formaction")
            if name == "href":
                assert value.startswith("#")
                assert value[1:] in ids
            if name == "src":
                assert re.fullmatch(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+", value)
            if name == "style":
                assert re.fullmatch(r"--depth:[\d.]+", value)
    assert all(image.attrib["alt"] for image in root.iter("img"))
    assert all(drawing.attrib.get("aria-label") for drawing in root.iter("svg") if drawing.get("role") == "img")
    assert all(t.find("caption") is not None for t in root.iter("table"))
    (style,) = root.iter("style")
    assert not re.search(r"url\(|@import|https?:", style.text or "")
    levels = [int(element.tag[1]) for element in root.iter() if element.tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1


KNOWN = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "nav", "section", "aside", "div"),
    *("h1", "h2", "h3", "p", "b", "a", "span", "code", "pre", "ul", "ol", "li", "dl", "dt", "dd", "details", "summary"),
    *("figure", "figcaption", "img", "table", "caption", "thead", "tbody", "tr", "th", "td"),
    *("svg", "g", "line", "text", "polyline", "polygon", "circle", "rect"),
}


def text_of(element: ET.Element) -> str:
    return " ".join("".join(element.itertext()).replace("\u00a0", " ").split())


def part(root: ET.Element, name: str) -> ET.Element:
    return next(element for element in root.iter("section") if element.get("id") == name)


def rows(element: ET.Element) -> Iterator[list[str]]:
    for row in element.iter("tr"):
        yield [text_of(cell) for cell in row]


def terms(root: ET.Element) -> dict[str, str]:
    pairs = [(group.find("dt"), group.find("dd")) for group in root.iter("div")]
    return {text_of(name): text_of(value) for name, value in pairs if name is not None and value is not None}


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


def test_what_is_missing_is_said(finished: Path, tmp_path: Path) -> None:
    def copied(name: str) -> Path:
        return Path(shutil.copytree(finished, tmp_path / name))

    interrupted = copied("interrupted")
    (interrupted / "summary.json").unlink()
    text = (interrupted / "metrics.jsonl").read_text().splitlines(keepends=True)
    (interrupted / "metrics.jsonl").write_text("".join(text[:15]) + text[15][:20])
    (interrupted / "train.log").write_text("ended: PeerLost: after step 14: rank 1\n")
    found = written(interrupted)
    assert "Not finished: after 1 of 3 epochs" in text_of(found)
    assert "left out: 1" in text_of(found)
    assert (
        terms(found)["State"]
        == "not finished: 1 of 3 epochs are done; its log ends with: PeerLost: after step 14: rank 1"
    )

    bare = copied("bare")
    shutil.rmtree(bare / "checkpoints")
    assert "There is no whole checkpoint" in text_of(written(bare))

    damaged = copied("damaged")
    with next(damaged.glob("checkpoints/*/tower-1.safetensors")).open("r+b") as file:
        file.write(b"x")
    assert "tower-1.safetensors" in text_of(written(damaged))

    elsewhere = a_run(tmp_path / "elsewhere", {"source": "pack", "path": str(tmp_path / "nowhere"), "verify": True})
    found = written(elsewhere)
    assert "data.path=FOLDER names the pack" in text_of(found)
    assert "Tower 1: 2 kernels of 3×3" in text_of(part(found, "kernels"))

    for name in ("config.yaml", "metrics.jsonl"):
        (bare / name).unlink()
        written(bare)
    (bare / "summary.json").write_text("{")
    assert "summary.json" in text_of(written(bare))
    with pytest.raises(ConfigurationError, match="is not the folder of a run"):
        written(tmp_path)


STARTED = "placement  distributed (one process for each tower), {}; process 0: tower 0 on cpu\n"


def unfinished(finished: Path, folder: Path, log: str, **configured: Any) -> Path:
    """The same run before its end, with another log and other keys in its configuration."""
    run = Path(shutil.copytree(finished, folder))
    (run / "summary.json").unlink()
    (run / "train.log").write_text(log)
    configuration = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**configuration, **configured}, sort_keys=False))
    return run


def test_the_end_of_a_run_that_went_on_is_not_told(finished: Path, tmp_path: Path) -> None:
    once = STARTED.format("1 replica") + "ended: Stopped: stopped after step 14, and saved\n"
    run = unfinished(finished, tmp_path / "run", once)
    assert read_folder(run).said["ended"] == "Stopped: stopped after step 14, and saved"
    (run / "train.log").write_text(once + STARTED.format("1 replica") + "epoch   2\n")
    assert "ended" not in read_folder(run).said
    assert terms(written(run))["State"] == "not finished: 3 of 3 epochs are done"


def test_the_batch_of_a_scaled_run_before_its_end_is_that_of_all_replicas(finished: Path, tmp_path: Path) -> None:
    run = unfinished(finished, tmp_path / "run", STARTED.format("2 replicas"), batch_scaling="linear")
    told = terms(written(run))
    rate = yaml.safe_load((run / "config.yaml").read_text())["recipe"]["weights"]["learning_rate"]
    assert told["Update"].startswith(f"After every {2 * BATCH} images")
    assert told["Learning rate"].startswith(f"ε = {2 * rate:g};")
    (run / "train.log").unlink()
    found = written(run)
    assert terms(found)["Update"].startswith(f"After every {BATCH} images")
    assert "Nothing says on how many replicas it ran; so the batch is one replica's" in text_of(found)


def test_another_end_than_that_of_the_metrics_is_told(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    text = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(text[:-11]))
    found = written(run)
    assert "they are of different runs" in text_of(found)
    assert terms(found)["State"] == "finished once, and changed since"


def hostile(value: Any) -> Any:
    """The same with every text in it hostile."""
    if isinstance(value, Mapping):
        return {key: hostile(inner) for key, inner in value.items()}
    return (
        HOSTILE if isinstance(value, str) else [hostile(inner) for inner in value] if isinstance(value, list) else value
    )


class Tags(HTMLParser):
    """The names of all elements, as a browser finds them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)


def test_hostile_names_are_shown_as_text(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "<script>alert(2)<"))
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(hostile(summary)))
    configuration = yaml.safe_load((run / "config.yaml").read_text())
    configuration["network"]["name"] = configuration["recipe"]["name"] = configuration["experiment_name"] = HOSTILE
    configuration["data"] = {"source": HOSTILE, "path": f"/a/{HOSTILE}"}
    configuration["precision"] = configuration["seed"] = HOSTILE
    (run / "config.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False))
    (run / "train.log").write_text(
        f"data       {HOSTILE}\nplacement  {HOSTILE}\nended: {HOSTILE}\ncompile    {HOSTILE}\n"
    )
    evaluate(run, "test-1views", 1, 0.1, [HOSTILE], data={"name": HOSTILE})
    names = tuple(f"{HOSTILE}{number}" for number in range(10))
    example = PredictedImage(torch.zeros(4, 4, 3, dtype=torch.uint8).numpy(), 0, 1, (0, 1), (0.7, 0.3))
    errors = Errors(1.0, 0.5, 0.1, 20)
    evaluation = Evaluation(errors, torch.ones(10, 10, dtype=torch.long), torch.ones(10, dtype=torch.long))
    predicted = Predictions(evaluation, names, HOSTILE, "validation", 20, (), (example,))
    found = CheckpointAnalysis(HOSTILE, narrow_network(), {"epoch": HOSTILE}, (), predicted, [HOSTILE])
    text = as_html(
        read_folder(run),
        found,
        {HOSTILE: report.PublishedResult(note=f"{HOSTILE} `<b>{HOSTILE}`")},
        f"python {HOSTILE}",
    )
    root = parsed(text)
    assert set(Tags(text).names) <= KNOWN
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", text)
    (note,) = part(root, "published").iter("code")
    assert text_of(note).startswith("<b></script>")
    for name in ("configuration", "confusion", "examples", "published", "end"):
        assert "</script><script>alert(1)</script>" in "".join(part(root, name).itertext()), name


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


def test_a_page_is_small(finished: Path, page: ET.Element) -> None:
    assert (finished / "report.html").stat().st_size < 2_000_000


def test_a_count_that_cannot_be_is_refused(finished: Path) -> None:
    with pytest.raises(ConfigurationError, match="images is 0, must be positive"):
        written(finished, "images=0")


# Every text's contrast to the color behind it, after WCAG 2.2; a cell's shade lies over the paper.
CONTRAST = """(() => {
  const parts = c => { const n = c.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n.length > 3 ? n[3] : 1]; };
  const linear = v => v / 255 <= .04045 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
  const light = c => { const f = c.slice(0, 3).map(linear);
    return .2126 * f[0] + .7152 * f[1] + .0722 * f[2]; };
  const behind = e => { const b = parts(getComputedStyle(e).backgroundColor);
    if (b[3] === 1) return b; const under = e.parentElement ? behind(e.parentElement) : [255, 255, 255, 1];
    return [0, 1, 2].map(i => b[i] * b[3] + under[i] * (1 - b[3])); };
  const low = [];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    const s = getComputedStyle(e), a = light(parts(e.tagName === 'text' ? s.fill : s.color)), b = light(behind(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) low.push([e.tagName, e.textContent.slice(0, 30), ratio]);
  }
  return low;
})()"""


@pytest.mark.slow
@pytest.mark.skipif(browser_program() is None, reason="no Chromium on PATH")
def test_a_browser_shows_it_without_errors_or_requests_in_both_themes_and_widths(
    finished: Path, page: ET.Element, tmp_path: Path
) -> None:
    program = browser_program()
    assert program
    with opened_page(program, tmp_path / "profile") as tab:
        papers = set()
        for theme in ("light", "dark"):
            for width in (360, 1400):
                tab.open(finished / "report.html", width, theme)
                said = [event for event in tab.events if event["method"] in SAID]
                asked = [
                    e["params"]["request"]["url"] for e in tab.events if e["method"] == "Network.requestWillBeSent"
                ]
                assert said == []
                assert [url for url in asked if not url.startswith("data:")] == [(finished / "report.html").as_uri()]
                assert tab.value("document.documentElement.scrollWidth") == width
                assert tab.value("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
                assert tab.value(CONTRAST) == []
                papers.add(tab.value("getComputedStyle(document.body).backgroundColor"))
        assert len(papers) == 2


SAID = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
