"""The report as a page: hostile names are text, it is small, and a browser shows it without errors or requests."""

import json
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from alexnet_mp.analysis.report.checkpoint_analysis import CheckpointAnalysis, PredictedImage, Predictions
from alexnet_mp.analysis.report.folder import read_folder
from alexnet_mp.analysis.report.page import as_html
from alexnet_mp.commands import report
from alexnet_mp.training.validation import Errors, Evaluation
from tests.support.browser import browser_program, opened_page
from tests.support.checkpoints import narrow_network
from tests.support.reports import KNOWN, parsed, part, text_of
from tests.support.runs import evaluate

HOSTILE = (
    "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)> http://evil.example/ --> ]]> &lt; \x1b[2J\u202e"
)


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


def test_a_page_is_small(finished: Path, page: ET.Element) -> None:
    assert (finished / "report.html").stat().st_size < 2_000_000


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
            for width in (360, 375, 830, 1400):
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
                assert tab.value(WIDER_THAN_THE_PAGE) == []
                papers.add(tab.value("getComputedStyle(document.body).backgroundColor"))
        assert len(papers) == 2


# The captions of tables that must be scrolled; a matrix of many classes may.
WIDER_THAN_THE_PAGE = """[...document.querySelectorAll('.scroll')].filter(
  e => e.scrollWidth > e.clientWidth && !e.querySelector('.matrix')).map(e => e.querySelector('caption').textContent)"""
SAID = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
