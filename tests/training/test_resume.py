"""A run in two parts is the run in one: whatever the recipe, wherever it stopped, under another placement."""

import shutil
from pathlib import Path

import pytest

from alexnet_mp.checkpoint.files import load_checkpoint, load_momentum
from tests.support.disturbed import (
    STOPPED,
    ask_to_stop,
    assert_ended_alike,
    at_step,
    at_validation,
    only_error,
    train,
    trained,
)
from tests.training.test_train import NARROW, in_processes, in_workers, metrics, summary

SHORT = (*NARROW, "recipe.epochs=2")


RECIPES = {
    "milestones": ["recipe.schedule.milestones=[{after_epoch: 1, learning_rate: 0.002}]"],
    "plateau": ["recipe.schedule={plateau: {patience: 1, drops: 3}, milestones: []}", "recipe.epochs=4"],
    "frozen": ["recipe.schedule.milestones=[{after_epoch: 1, learning_rate: 0, layers: [conv1]}]"],
    "thawed": [
        "recipe.schedule.milestones=[{after_epoch: 1, learning_rate: 0.01, layers: [conv1]}]",
        "+recipe.layers.conv1.weights={learning_rate: 0, weight_decay: 0}",
    ],
    "fixed_order": ["recipe.order=fixed", "recipe.batch_size=48"],
    "seldom_logged": ["log_every_steps=9"],
}


@pytest.mark.parametrize("overrides", RECIPES.values(), ids=RECIPES)
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(overrides, tmp_path):
    step = 31  # the ninth of the second epoch
    whole = trained(tmp_path / "whole", *SHORT, *overrides)
    with at_step(step, ask_to_stop):
        finished = train(tmp_path / "parts", *SHORT, *overrides)
    assert finished.code == STOPPED, finished.stderr
    stopped_after = step + 1  # the signal came when the step's agreement was over
    assert f"stopped after step {stopped_after}, and saved" in finished.stderr
    trained(tmp_path / "parts", *SHORT, *overrides)
    assert_ended_alike(whole, tmp_path / "parts")


def test_a_run_that_is_stopped_while_it_validates_validates_when_it_goes_on(after_two_epochs, tmp_path):
    with at_validation(ask_to_stop):
        finished = train(tmp_path / "parts", *SHORT)
    assert finished.code == STOPPED
    assert "stopped after step 22, and saved" in finished.stderr
    assert len(metrics(tmp_path / "parts")) == 22
    trained(tmp_path / "parts", *SHORT)
    assert_ended_alike(after_two_epochs, tmp_path / "parts")


def test_a_checkpoint_due_at_the_end_of_an_epoch_does_not_hinder_the_one_after_its_validation(
    after_two_epochs, tmp_path
):
    finished = train(tmp_path / "run", *SHORT, "checkpoint_steps=11")  # an epoch has 22
    assert finished.code == 0, finished.stderr
    assert "could not save" not in finished.stderr
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "step-000000044",  # the best, too
        "step-000000044-unvalidated",
    ]
    assert_ended_alike(after_two_epochs, tmp_path / "run")


def test_a_run_can_be_stopped_again_and_again_in_its_last_validation(after_one_epoch, tmp_path):
    with at_validation(ask_to_stop):
        for _ in range(3):
            finished = train(tmp_path / "parts", *NARROW, "recipe.epochs=1")
            assert finished.code == STOPPED, finished.stderr
    trained(tmp_path / "parts", *NARROW, "recipe.epochs=1")
    assert_ended_alike(after_one_epoch, tmp_path / "parts")


def test_a_complete_run_is_left_as_it_is_and_more_epochs_go_on(after_one_epoch, after_two_epochs, tmp_path):
    parts = shutil.copytree(after_one_epoch, tmp_path / "parts")
    files = {path: path.read_bytes() for path in parts.rglob("*") if path.is_file()}
    finished = train(parts, *NARROW, "recipe.epochs=1")
    assert finished.code == 0
    assert "has all its epochs" in finished.stderr
    assert {path: path.read_bytes() for path in parts.rglob("*") if path.is_file()} == files
    finished = train(parts, *SHORT)
    assert "recipe.epochs was 1 and is 2" in finished.stderr
    assert_ended_alike(after_two_epochs, parts)
    assert "epochs: 1\n" in (parts / "config-until-step-000000022.yaml").read_text()
    assert "epochs: 2\n" in (parts / "config.yaml").read_text()


ANOTHER_RUN = {
    "network": (["network.layers.conv2.kernels=4"], "network.layers.conv2.kernels was 8 and is 4"),
    "row": (["network.layers.lrn1=null"], "network.layers.lrn1 was {'kind': 'lrn'"),
    "towers": (["towers=1"], "network.towers was 2 and is 1"),
    "seed": (["seed=1"], "seed was 0 and is 1"),
}


@pytest.mark.parametrize("overrides, says", ANOTHER_RUN.values(), ids=ANOTHER_RUN)
def test_a_checkpoint_of_another_run_is_refused_with_the_difference_and_left_alone(
    overrides, says, after_one_epoch, tmp_path
):
    run = shutil.copytree(after_one_epoch, tmp_path / "run")
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    finished = train(run, *SHORT, *overrides)
    assert finished.code == 2
    line = only_error(finished)
    assert says in line
    assert "choose another run_dir" in line
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files


def test_a_changed_recipe_is_allowed_and_named(after_one_epoch, tmp_path):
    run = shutil.copytree(after_one_epoch, tmp_path / "run")
    finished = train(run, *SHORT, "recipe.batch_size=32", "recipe.weights.learning_rate=0.01")
    assert finished.code == 0, finished.stderr
    assert "recipe.batch_size was 64 and is 32" in finished.stderr
    assert "recipe.weights.learning_rate was 0.02 and is 0.01" in finished.stderr
    assert summary(run)["steps"] == 22 + 1437 // 32
    _, description = load_checkpoint(run / "checkpoints" / summary(run)["checkpoint"], towers=[])
    assert description["progress"]["samples_seen"] == 22 * 64 + 44 * 32


def test_two_replicas_in_four_processes_go_on_from_one_process(tmp_path):
    doubles = (*SHORT, "precision=float64")
    whole = trained(tmp_path / "whole", *doubles)
    parts = trained(tmp_path / "parts", *NARROW, "precision=float64", "recipe.epochs=1")
    in_workers(4, parts, *doubles)
    assert summary(parts)["replicas"] == 2
    assert_close(whole, parts, 1e-10)


@pytest.mark.slow
def test_one_run_under_four_placements_ends_as_under_one(tmp_path):
    doubles = (*NARROW, "precision=float64", "checkpoint_steps=10")
    whole = trained(tmp_path / "whole", *doubles, "recipe.epochs=4")
    parts = tmp_path / "parts"
    for epochs, processes in ((1, 1), (2, 2), (3, 4), (4, 1)):
        finished = in_processes(processes, parts, *doubles, f"recipe.epochs={epochs}", deadline=180)
        assert finished.code == 0, finished.stderr
    assert_close(whole, parts, 1e-10)


def assert_close(one: Path, other: Path, tolerance: float) -> None:
    """Losses, weights and velocities differ by no more than `tolerance`, relative to the largest of each."""
    for expected, found in zip(metrics(one, "loss", "top1_error"), metrics(other, "loss", "top1_error"), strict=True):
        assert found == (*expected[:2], pytest.approx(expected[2], rel=tolerance), expected[3])
    folders = [folder / "checkpoints" / summary(folder)["checkpoint"] for folder in (one, other)]
    for load in (lambda folder: load_checkpoint(folder)[0], lambda folder: load_momentum(folder, [0, 1])):
        first, second = (load(folder) for folder in folders)
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            error = ((second[name] - tensor).abs().max() / tensor.abs().max()).item()
            assert error <= tolerance, f"{name} differs by {error:.1e}"
