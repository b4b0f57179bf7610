"""The report of a finished run of a narrow network, and what its page says."""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from alexnet_mp import build_model
from alexnet_mp.checkpoint.files import save_checkpoint
from alexnet_mp.commands import report
from alexnet_mp.common.cli import compose
from tests.support.checkpoints import narrow_network
from tests.support.runs import make_run

STEPS, EPOCHS, BATCH, DIVISOR = 10, 3, 64, 64
WEIGHTS = 3  # a seed whose initial weights tell images apart
ERRORS = {1: 0.5, 2: 0.3, 3: 0.4}
# narrow_network: 2 maps of 3x3 into conv3, 2 floats into fc6 and fc7, 10 partial logits that do not return.
FORWARD = {"conv3": 18, "fc6": 2, "fc7": 2, "fc8": 10}


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
