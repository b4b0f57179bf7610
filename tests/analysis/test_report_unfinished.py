"""The report of a run that is unfinished, damaged or changed says what is missing."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from alexnet_mp import ConfigurationError
from alexnet_mp.analysis.report.folder import read_folder
from tests.support.reports import BATCH, a_run, part, terms, text_of, written


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
