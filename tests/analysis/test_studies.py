"""Studies on the page of results: medians and ranges over seeds, differences to the baseline, published points."""

import json
from pathlib import Path

import pytest
from PIL import Image

from alexnet_mp import ConfigurationError
from alexnet_mp.analysis.results.studies import read_study
from alexnet_mp.commands import results
from alexnet_mp.common.cli import compose
from tests.support.runs import make_run
from tests.support.sweeps import TWO, Fake, sweep

ERRORS = {"lrn/seed-0": 0.10, "lrn/seed-1": 0.30, "no_lrn/seed-0": 0.15, "no_lrn/seed-1": 0.31}
PUBLISHED = {"top1_points": 1.4, "top1_error": 0.42, "source": "paper <b>§3.3</b>"}
TOP5 = {"top5_points": 1.2}


def study(folder: Path, errors: dict[str, float], **known: float) -> Path:
    variants = {"lrn": [], "no_lrn": {"overrides": TWO["no_lrn"], "published": {**PUBLISHED, **known}}}
    sweep(folder, Fake(errors), variants=variants, baseline="lrn", overrides=["experiment=digits"])
    return folder


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def page(out: Path, *sweeps: Path) -> str:
    run = make_run(out / "run")
    results.run(compose("results", [f"runs=[{run}]", f"sweeps=[{','.join(map(str, sweeps))}]", f"out={out}"]))
    return (out / "results.md").read_text(encoding="utf-8")


def test_a_study_has_a_row_for_each_variant_with_its_difference_to_the_baseline(tmp_path: Path) -> None:
    text = page(tmp_path, study(tmp_path / "norms", ERRORS))
    assert "## Study `norms`" in text
    assert "Every run: `experiment=digits`" in text
    rows = cells(text)
    at = rows.index(["lrn", "", "2", "1,234,567", "10.0", "20.00 (10.00 to 30.00)", "", "", "", ""])
    difference = ["+3.00 (+1.00 to +5.00)", "+1.4", "42.00", "paper &lt;b>§3.3&lt;/b>"]
    assert rows[at + 1][5:] == ["23.00 (15.00 to 31.00)", *difference]
    assert "Not complete" not in text
    assert "](curves/study-norms.png)" in text
    assert Image.open(tmp_path / "curves" / "study-norms.png").size[0] > 500


def test_sweeps_alone_make_a_page_and_its_command_says_so(tmp_path: Path) -> None:
    norms = study(tmp_path / "norms", ERRORS)
    results.run(compose("results", [f"sweeps=[{norms}]", f"out={tmp_path}"]))
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("#")] == ["# Results", "## Study `norms`"]
    assert f"by `python launch/results.py 'sweeps=[{norms}]' out={tmp_path}`" in text


def test_points_of_top_5_stand_beside_published_ones(tmp_path: Path) -> None:
    rows = cells(page(tmp_path, study(tmp_path / "norms", ERRORS, **TOP5)))
    (header,) = [row for row in rows if row[:2] == ["variant", "changes"]]
    (without,) = [dict(zip(header, row, strict=True)) for row in rows if row[0] == "no_lrn"]
    # make_run's top-5 error is a tenth of its top-1 error.
    assert without["points above the baseline"] == "+3.00 (+1.00 to +5.00)"
    assert without["the same of top-5"] == "+0.30 (+0.10 to +0.50)"
    assert without["published points, top-1 / top-5"] == "+1.4 / +1.2"


def test_a_study_is_shown_with_the_command_that_asked_for_it(tmp_path: Path) -> None:
    folder = study(tmp_path / "norms", ERRORS)
    assert "launch/sweep.py" not in page(tmp_path / "unknown", folder)  # no preset is called norms
    older = folder.rename(tmp_path / "lrn")
    held = json.loads((older / "sweep.json").read_text())
    del held["command"]
    (older / "sweep.json").write_text(json.dumps(held))
    assert "\npython launch/sweep.py sweep=lrn out=sweeps/lrn\n" in page(tmp_path / "older", older)
    (older / "sweep.json").write_text(json.dumps({**held, "command": "python launch/sweep.py sweep=lrn out=big"}))
    assert "\npython launch/sweep.py sweep=lrn out=big\n" in page(tmp_path / "noted", older)


def test_studies_called_alike_have_a_chart_each(tmp_path: Path) -> None:
    folders = [study(tmp_path / where / "norms", ERRORS) for where in ("a", "b")]
    text = page(tmp_path, *folders)
    assert [name in text for name in ("](curves/study-norms.png)", "](curves/study-norms-2.png)")] == [True, True]
    assert {path.name for path in (tmp_path / "curves").glob("study-*")} == {"study-norms.png", "study-norms-2.png"}


def test_what_the_runs_of_a_study_have_not_in_common_stands_at_each_variant(tmp_path: Path) -> None:
    folder = study(tmp_path / "norms", ERRORS)
    assert "12 epochs, batch 64; CPU (an abacus), 2 processes of 1 CPU thread; torch 9.9; commit" in page(
        tmp_path / "alike", folder
    )
    for seed in (0, 1):
        path = folder / "no_lrn" / f"seed-{seed}" / "summary.json"
        changed = {"batch_size": 1280, "device": "CPU (fingers)"}
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    text = page(tmp_path / "unlike", folder)
    assert "12 epochs; CPU (an abacus), 2 processes of 1 CPU thread; torch 9.9; CPU (fingers), 2 proc" in text
    assert [row[4] for row in cells(text) if row[0] in ("variant", "lrn", "no_lrn")] == ["batch", "64", "1,280"]


def test_a_run_of_a_study_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = study(tmp_path / "norms", ERRORS)
    (folder / "lrn" / "seed-1" / "summary.json").unlink()
    with pytest.raises(ConfigurationError, match="seed-1 is a run that has not finished") as refused:
        read_study(folder)
    assert "sweep.json" not in str(refused.value)


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
    held["variants"]["no_lrn"]["above_baseline"]["top1_error"] = {"mean": 0.2}
    (folder / "sweep.json").write_text(json.dumps(held))
    with pytest.raises(ConfigurationError):
        read_study(folder)
