"""dry_run=true builds a run, trains one step, says what the whole would be, and leaves no file."""

import json
from pathlib import Path

import numpy as np
import pytest

from alexnet_mp import ConfigurationError
from alexnet_mp import train as train_from_python
from alexnet_mp.commands import train
from alexnet_mp.common.cli import compose
from tests.support.checkpoints import narrow_network
from tests.support.packs import entry
from tests.support.presets import composed, presets
from tests.support.processes import run_script, run_script_in
from tests.training.test_train import NARROW

IMAGES = 4


def write_random_pack(folder: Path, size: int, classes: int) -> None:
    """Four images to train on and one to validate, of random pixels, in as many classes as wanted."""
    rng = np.random.default_rng(size)
    splits = {}
    for split, count in (("train", IMAGES), ("validation", 1)):
        (folder / split).mkdir(parents=True)
        pixels = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        splits[split] = {
            "count": count,
            "labels": entry(folder, f"{split}/labels.npy", np.arange(count) % classes),
            "shards": [entry(folder, f"{split}/00000.npy", pixels, count=count)],
        }
    manifest = {
        "format": "alexnet_mp pack",
        "format_version": 2,
        "size": size,
        "class_names": [f"class {number}" for number in range(classes)],
        "splits": splits,
        "mean_image": entry(folder, "mean_image.npy", np.full((size, size, 3), 127.5)),
        "color": {"eigenvalues": [3.0, 2.0, 1.0], "eigenvectors": [[0, 1, 0], [1, 0, 0], [0, 0, 1]]},
        "skipped": [],
        "settings": {},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*"))


@pytest.mark.parametrize("path", presets("experiment"), ids=lambda path: path.stem)
def test_every_experiment_can_be_tried_and_leaves_no_file(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    configuration = dict(composed("train", f"experiment={path.stem}"))
    configuration |= {"dry_run": True, "device": "cpu", "recipe": {**configuration["recipe"], "batch_size": 2}}
    network = configuration["network"]
    if configuration["data"]["source"] == "pack":
        pack = configuration["data"]["path"] or "packs/photos"
        configuration["data"] = {**configuration["data"], "path": pack}
        write_random_pack(tmp_path / pack, max(network["image"][1:]) + 8, network["classes"])
    before = files_below(tmp_path)
    train.run(configuration)
    assert files_below(tmp_path) == before
    steps = 1437 // 2 if path.stem == "digits" else IMAGES // 2
    said = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines() if " " in line)
    assert said["steps"].startswith(f"{steps:,} an epoch, {steps * configuration['recipe']['epochs']:,} in ")
    assert " ms a step, " in said["predicted"]
    assert "two EPYC cores" in said["predicted"] or "EPYC" in said["predicted"]
    assert said["first"].startswith("step loss ")


def test_two_processes_try_the_run_that_they_would_train(tmp_path: Path) -> None:
    alone = run_script("launch/train.py", [*NARROW, "dry_run=true", "device=cpu"], tmp_path)
    both = run_script_in(2, "launch/train.py", [*NARROW, "dry_run=true", "device=cpu"], tmp_path)
    assert (alone.code, both.code) == (0, 0)
    assert "distributed (one process for each tower)" in both.stdout

    def loss(said: str) -> str:
        return said.split("first step loss ")[1].split(",")[0]

    assert loss(alone.stdout) == loss(both.stdout)
    assert list(tmp_path.iterdir()) == []


def test_the_hardware_to_predict_for_can_be_named(tmp_path: Path) -> None:
    said = run_script("launch/train.py", [*NARROW, "dry_run=two_gtx_580", "device=cpu"], tmp_path).stdout
    assert "GTX 580" in said.split("predicted")[1]
    wrong = run_script("launch/train.py", [*NARROW, "dry_run=two_gtx_581"], tmp_path)
    assert wrong.code == 2
    assert "did you mean 'two_gtx_580'?" in wrong.stderr


def test_what_train_would_refuse_is_refused(tmp_path: Path) -> None:
    for arguments, says in ((["data=imagenet"], "packs/imagenet"), (["recipe.batch_size=2000"], "1437")):
        wrong = run_script("launch/train.py", [*arguments, "dry_run=true"], tmp_path)
        assert (wrong.code, wrong.stderr.count("\n")) == (2, 1)
        assert says in wrong.stderr
    with pytest.raises(ConfigurationError, match="dry_run is set"):
        train_from_python(compose("train", ["dry_run=true"]))


def test_a_sweep_tries_a_job_of_every_variant(tmp_path: Path) -> None:
    quoted = ",".join(f"'{override}'" for override in NARROW)
    asked = [f"overrides=[{quoted}]", "seeds=[3,4]", f"out={tmp_path / 'out'}", "dry_run=true", "processes=2"]
    finished = run_script("launch/sweep.py", ["variants={one: [], four: ['recipe.epochs=4']}", *asked], tmp_path)
    assert (finished.code, finished.stderr) == (0, "")
    lines = finished.stdout.splitlines()
    assert [line for line in lines if line.endswith(("seed-3", "seed-4"))] == ["one/seed-3", "four/seed-3"]
    assert [line for line in lines if line.startswith("steps ")] == [
        "steps      22 an epoch, 330 in 15 epochs",
        "steps      22 an epoch, 88 in 4 epochs",
    ]
    assert lines[-1] == "tried 2 of 4 jobs, each in one process, whatever processes= says"
    wrong = run_script("launch/sweep.py", ["variants={bad: ['recipe.batch_size=2000']}", *asked], tmp_path)
    assert wrong.code == 2
    assert wrong.stderr.startswith("error: variant bad: recipe.batch_size=2000 is more than the 1437 training images")
    assert list(tmp_path.iterdir()) == []


def test_the_networks_classes_are_those_of_the_data_unless_they_are_given(tmp_path: Path) -> None:
    write_random_pack(tmp_path / "pack", 16, classes=3)
    arguments = ["data=pack", f"data.path={tmp_path / 'pack'}", "recipe.batch_size=2", "recipe.epochs=1", "device=cpu"]
    assert run_script("launch/train.py", [*NARROW, *arguments, "run_dir=run"], tmp_path).code == 0
    assert "classes: 3" in (tmp_path / "run" / "config.yaml").read_text()
    again = run_script("launch/train.py", [*NARROW, *arguments, "run_dir=run"], tmp_path)
    assert again.code == 0, "the same command finds its run"
    given = run_script("launch/train.py", [*NARROW, *arguments, "network.classes=10"], tmp_path)
    assert given.code == 2
    assert "10 classes" in given.stderr
    assert "network.classes=3" in given.stderr
    configuration = {**compose("train", [*arguments, "run_dir=other"]), "network": narrow_network().to_mapping()}
    with pytest.raises(ConfigurationError, match="10 classes"):
        train_from_python(configuration)
