"""Studies on the page of results: medians and ranges over seeds, differences to the baseline, published points."""

import json
from pathlib import Path

import pytest
from PIL import Image

from alexnet_mp import ConfigurationError
from alexnet_mp.commands import results
from alexnet_mp.entry import compose
from alexnet_mp.results.studies import read_study
from tests.test_results import make_run
from tests.test_sweep import TWO, Fake, sweep

ERRORS = {"lrn/seed-0": 0.10, "lrn/seed-1": 0.30, "no_lrn/seed-0": 0.15, "no_lrn/seed-1": 0.31}
PUBLISHED = {"top1_points": 1.4, "top1_error": 0.42, "source": "paper <b>§3.3</b>"}


def study(folder: Path, errors: dict[str, float]) -> Path:
    variants = {"lrn": [], "no_lrn": {"overrides": TWO["no_lrn"], "published": PUBLISHED}}
    sweep(folder, Fake(errors), variants=variants, baseline="lrn", overrides=["experiment=digits"])
    return folder


def page(out: Path, *sweeps: Path) -> str:
    run = make_run(out / "run")
    results.run(compose("results", [f"runs=[{run}]", f"sweeps=[{','.join(map(str, sweeps))}]", f"out={out}"]))
    return (out / "results.md").read_text(encoding="utf-8")


def test_a_study_has_a_row_for_each_variant_with_its_difference_to_the_baseline(tmp_path: Path) -> None:
    text = page(tmp_path, study(tmp_path / "norms", ERRORS))
    assert "## Study `norms`" in text
    assert "python launch/sweep.py sweep=norms out=sweeps/norms" in text
    assert "Every run: `experiment=digits`" in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    at = rows.index(["lrn", "", "2", "1,234,567", "10.0", "20.00 (10.00 to 30.00)", "", "", "", ""])
    difference = ["+3.00 (+1.00 to +5.00)", "+1.4", "42.00", "paper &lt;b>§3.3&lt;/b>"]
    assert rows[at + 1][5:] == ["23.00 (15.00 to 31.00)", *difference]
    assert "Not complete" not in text
    assert "](curves/study-norms.png)" in text
    assert Image.open(tmp_path / "curves" / "study-norms.png").size[0] > 500


def test_a_study_that_is_not_complete_says_so(tmp_path: Path) -> None:
    text = page(tmp_path, study(tmp_path / "norms", {"lrn/seed-0": 0.1, "no_lrn/seed-0": 0.2}))
    assert "Not complete: 2 of 4 runs are finished." in text
    assert "| 10.00 |" in text and "| +10.00 |" in text


@pytest.mark.parametrize("content", ["{", "[]", '{"definition": {}}', '{"definition": {"overrides": 3}}'])
def test_a_folder_that_is_no_sweep_is_an_error_that_names_it(content: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"sweep\.json is not what a sweep writes"):
        read_study(tmp_path)


def test_a_sweep_of_another_layout_is_refused(tmp_path: Path) -> None:
    folder = study(tmp_path / "norms", ERRORS)
    held = json.loads((folder / "sweep.json").read_text())
    held["variants"]["lrn"]["top1_error"] = {"mean": 0.2}
    (folder / "sweep.json").write_text(json.dumps(held))
    with pytest.raises(ConfigurationError):
        read_study(folder)
