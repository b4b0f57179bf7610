"""A refused run leaves no folder; what the error advises works in the same run folder."""

import json
import re
from pathlib import Path

import pytest

from alexnet_mp.parallel import link_test
from alexnet_mp.training import train as composed
from tests.support.disturbed import train
from tests.training.test_train import NARROW

SHORT = (*NARROW, "recipe.epochs=1")


@pytest.fixture(scope="module")
def pretrained(after_one_epoch: Path) -> Path:
    (found,) = (after_one_epoch / "checkpoints").iterdir()
    return found


@pytest.mark.parametrize(
    "overrides",
    [
        ["initial_weights.checkpoint=nowhere"],
        ["initial_weights.checkpoint=PRETRAINED", "network.layers.conv2.kernels=6"],
        ["initial_weights.checkpoint=PRETRAINED", "initial_weights.but=[fc9]"],
        ["data=pack", "data.path=nowhere"],
        ["data=folder", "data.path=nowhere"],
        ["recipe.batch_size=2000"],
        ["network.classes=3"],
        ["precision=tf32", "device=cpu"],
        ["+recipe.layers.conv9.weights={learning_rate: 1, weight_decay: 0}"],
    ],
)
def test_a_refused_run_leaves_no_folder(overrides: list[str], tmp_path: Path, pretrained: Path) -> None:
    finished = train(tmp_path / "run", *SHORT, *(each.replace("PRETRAINED", str(pretrained)) for each in overrides))
    assert (finished.code, finished.stderr.count("error: ")) == (2, 1), finished.stderr
    assert not (tmp_path / "run").exists()


def test_a_link_that_is_refused_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def corrupts(*_: object) -> None:
        raise link_test.LinkError("what crosses does not arrive")

    monkeypatch.setattr(composed, "checked_link", corrupts)
    finished = train(tmp_path / "run", *SHORT)
    assert (finished.code, finished.stderr) == (1, "error: what crosses does not arrive\n")
    assert not (tmp_path / "run").exists()


def test_layers_that_do_not_fit_are_drawn_anew_as_advised_in_the_same_run_folder(
    tmp_path: Path, pretrained: Path
) -> None:
    asked = [*SHORT, f"initial_weights.checkpoint={pretrained}", "network.layers.conv2.kernels=6"]
    refused = train(tmp_path / "run", *asked)
    advised = re.search(r"to draw such layers anew: (initial_weights\.but=\[\S+\])", refused.stderr)
    assert advised, refused.stderr
    finished = train(tmp_path / "run", *asked, advised[1])
    assert finished.code == 0, finished.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 22


def test_a_lower_learning_rate_trains_in_the_same_run_folder(tmp_path: Path) -> None:
    diverged = train(tmp_path / "run", *SHORT, "recipe.weights.learning_rate=1e30")
    assert diverged.code == 1
    assert "lower the learning rate" in diverged.stderr
    finished = train(tmp_path / "run", *SHORT)
    assert finished.code == 0, finished.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 23)), "from the beginning"
    assert "1.0e+30" in (tmp_path / "run" / "config-earlier-1.yaml").read_text()


def test_checkpoints_that_vanish_between_two_looks_end_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composed, "has_checkpoint", lambda *_: True)
    finished = train(tmp_path / "run", *SHORT)
    assert "somebody removed its checkpoints; start again" in finished.stderr, "or it would begin without its weights"
