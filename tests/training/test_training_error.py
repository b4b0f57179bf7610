"""`training_error=true`: after each epoch the errors on the whole training split, once each, also of a resumed run."""

import json
from pathlib import Path

import pytest

from alexnet_mp.data.loader import Loader
from tests.support.disturbed import STOPPED, ask_to_stop, assert_ended_alike, at_step, train, trained
from tests.support.processes import run_script
from tests.training.test_train import NARROW, in_workers, summary

SHORT = (*NARROW, "recipe.epochs=2", "training_error=true")


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def of_training(folder: Path) -> list[dict]:
    return [line for line in lines(folder) if line["kind"] == "training"]


def evaluated(folder: Path) -> dict:
    """What `launch/evaluate.py` finds of the run's last checkpoint on the training split."""
    checkpoint = folder / "checkpoints" / summary(folder)["checkpoint"]
    asked = [f"checkpoint={checkpoint}", "split=train", "batch_size=500", f"out={folder / 'train-split'}"]
    finished = run_script("launch/evaluate.py", asked, folder.parent)
    assert finished.code == 0, finished.stderr
    return json.loads((folder / "train-split" / "summary.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return trained(tmp_path_factory.mktemp("run") / "whole", *SHORT)


def test_each_epoch_has_one_line_of_the_whole_training_split_in_evaluation_mode(whole):
    found = of_training(whole)
    assert [(line["step"], line["epoch"]) for line in found] == [(22, 1), (44, 2)]
    assert found[0].keys() == {"kind", "step", "epoch", "loss", "top1_error", "top5_error"}
    expected = evaluated(whole)
    assert expected["images"] == 1437  # the digits less those held out, of which a step of 64 sees 22 * 64
    assert found[-1]["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert (found[-1]["top1_error"], found[-1]["top5_error"]) == (expected["top1_error"], expected["top5_error"])


def test_it_changes_nothing_else_of_a_run(whole, after_two_epochs):
    assert of_training(after_two_epochs) == []
    speedless = [
        [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines(folder)]
        for folder in (after_two_epochs, whole)
    ]
    assert speedless[0] == [line for line in speedless[1] if line["kind"] != "training"]


def test_a_run_stopped_within_an_epoch_has_each_line_once(whole, tmp_path):
    with at_step(31, ask_to_stop):
        assert train(tmp_path / "parts", *SHORT).code == STOPPED
    trained(tmp_path / "parts", *SHORT)
    assert_ended_alike(whole, tmp_path / "parts")


def test_a_run_stopped_while_it_evaluates_the_training_split_has_each_line_once(whole, tmp_path, monkeypatch):
    evaluation = Loader.evaluation

    def asked(self, split, views=1):
        if split == "train":
            ask_to_stop()
        return evaluation(self, split, views)

    with monkeypatch.context() as patch:
        patch.setattr(Loader, "evaluation", asked)
        assert train(tmp_path / "parts", *SHORT).code == STOPPED
    assert [line["kind"] for line in lines(tmp_path / "parts")] == ["train"] * 22
    trained(tmp_path / "parts", *SHORT)
    assert_ended_alike(whole, tmp_path / "parts")


def test_replicas_with_unequal_shares_evaluate_every_image_once(tmp_path):
    run = tmp_path / "run"
    # Of 1437 images one replica has 719, two batches of its 718, and the other 718, one batch.
    in_workers(2, run, *NARROW, "towers=1", "training_error=true", "recipe.epochs=1", "recipe.batch_size=1436")
    assert summary(run)["replicas"] == 2
    found, expected = of_training(run), evaluated(run)
    assert len(found) == 1
    assert found[0]["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert found[0]["top1_error"] == expected["top1_error"]
