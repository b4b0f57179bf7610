"""A run in two parts is the run in one: whatever the recipe, wherever it stopped, under another placement."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
from safetensors import SafetensorError

from alexnet_mp import ConfigurationError
from alexnet_mp.checkpoint import files as checkpoint_files
from alexnet_mp.checkpoint.files import load_checkpoint, load_momentum, verify_checkpoint
from alexnet_mp.data.loader import Loader
from alexnet_mp.model.layers.norm import LocalResponseNorm
from alexnet_mp.training.run_folder import RunFolder
from tests.support.disturbed import assert_ended_alike
from tests.support.processes import Finished, as_under_torchrun, run_processes, run_script
from tests.training.test_train import NARROW, in_processes, in_workers, metrics, summary

STOPPED = 75
SHORT = (*NARROW, "recipe.epochs=2")


def train(folder: Path, *overrides: str) -> Finished:
    return run_script("launch/train.py", [f"run_dir={folder}", *overrides], folder.parent)


def trained(folder: Path, *overrides: str) -> Path:
    finished = train(folder, *overrides)
    assert finished.code == 0, finished.stderr
    return folder


@contextmanager
def at_step(step: int, act: Callable[[], object]) -> Iterator[None]:
    """Do something when the run has written its line of metrics for a step."""
    append = RunFolder.append

    def watched(self, record):
        append(self, record)
        if (record["kind"], record["step"]) == ("train", step):
            act()

    with patch.object(RunFolder, "append", watched):
        yield


def ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


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


def test_a_run_that_is_stopped_while_it_validates_validates_when_it_goes_on(tmp_path, monkeypatch):
    whole = trained(tmp_path / "whole", *SHORT)
    validation = Loader.validation

    def asked(self):
        ask_to_stop()
        return validation(self)

    with monkeypatch.context() as patch:
        patch.setattr(Loader, "validation", asked)
        finished = train(tmp_path / "parts", *SHORT)
    assert finished.code == STOPPED
    assert "stopped after step 22, and saved" in finished.stderr
    assert len(metrics(tmp_path / "parts")) == 22
    trained(tmp_path / "parts", *SHORT)
    assert_ended_alike(whole, tmp_path / "parts")


def test_a_checkpoint_due_at_the_end_of_an_epoch_does_not_hinder_the_one_after_its_validation(tmp_path):
    whole = trained(tmp_path / "whole", *SHORT)
    finished = train(tmp_path / "run", *SHORT, "checkpoint_steps=11")  # an epoch has 22
    assert finished.code == 0, finished.stderr
    assert "could not save" not in finished.stderr
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "step-000000022",  # the best
        "step-000000044",
        "step-000000044-unvalidated",
    ]
    assert_ended_alike(whole, tmp_path / "run")


def test_a_run_can_be_stopped_again_and_again_in_its_last_validation(tmp_path, monkeypatch):
    whole = trained(tmp_path / "whole", *NARROW, "recipe.epochs=1")
    validation = Loader.validation

    def asked(self):
        ask_to_stop()
        return validation(self)

    with monkeypatch.context() as patch:
        patch.setattr(Loader, "validation", asked)
        for _ in range(3):
            finished = train(tmp_path / "parts", *NARROW, "recipe.epochs=1")
            assert finished.code == STOPPED, finished.stderr
    trained(tmp_path / "parts", *NARROW, "recipe.epochs=1")
    assert_ended_alike(whole, tmp_path / "parts")


def test_a_complete_run_is_left_as_it_is_and_more_epochs_go_on(tmp_path):
    whole = trained(tmp_path / "whole", *SHORT)
    parts = trained(tmp_path / "parts", *NARROW, "recipe.epochs=1")
    files = {path: path.read_bytes() for path in parts.rglob("*") if path.is_file()}
    finished = train(parts, *NARROW, "recipe.epochs=1")
    assert finished.code == 0
    assert "has all its epochs" in finished.stderr
    assert {path: path.read_bytes() for path in parts.rglob("*") if path.is_file()} == files
    finished = train(parts, *SHORT)
    assert "recipe.epochs was 1 and is 2" in finished.stderr
    assert_ended_alike(whole, parts)
    assert "epochs: 1\n" in (parts / "config-until-step-000000022.yaml").read_text()
    assert "epochs: 2\n" in (parts / "config.yaml").read_text()


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory) -> Path:
    return trained(tmp_path_factory.mktemp("run") / "run", *NARROW, "recipe.epochs=1")


ANOTHER_RUN = {
    "network": (["network.layers.conv2.kernels=4"], "network.layers.conv2.kernels was 8 and is 4"),
    "row": (["network.layers.lrn1=null"], "network.layers.lrn1 was {'kind': 'lrn'"),
    "towers": (["towers=1"], "network.towers was 2 and is 1"),
    "seed": (["seed=1"], "seed was 0 and is 1"),
}


@pytest.mark.parametrize("overrides, says", ANOTHER_RUN.values(), ids=ANOTHER_RUN)
def test_a_checkpoint_of_another_run_is_refused_with_the_difference_and_left_alone(
    overrides, says, one_epoch, tmp_path
):
    run = shutil.copytree(one_epoch, tmp_path / "run")
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    finished = train(run, *SHORT, *overrides)
    assert finished.code == 2
    line = only_error(finished)
    assert says in line
    assert "choose another run_dir" in line
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files


def test_a_changed_recipe_is_allowed_and_named(one_epoch, tmp_path):
    run = shutil.copytree(one_epoch, tmp_path / "run")
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


class FullDisk:
    """A disk that does not take the next `left` files of tensors."""

    def __init__(self, left: int) -> None:
        self.left = left
        self._written = checkpoint_files.save_file

    def save_file(self, *arguments) -> None:
        if self.left > 0:
            self.left -= 1
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        self._written(*arguments)


def test_a_disk_that_is_full_for_a_while_costs_checkpoints_and_no_more(tmp_path):
    whole = trained(tmp_path / "whole", *SHORT)
    with patch.object(checkpoint_files, "save_file", FullDisk(3).save_file):
        finished = train(tmp_path / "run", *SHORT, "checkpoint_steps=10")
    assert finished.code == 0, finished.stderr
    assert finished.stderr.count("No space left on device (os error 28); the newest checkpoint is") == 3
    assert_ended_alike(whole, tmp_path / "run")


def test_a_last_state_that_cannot_be_saved_ends_the_run_with_an_error_and_it_goes_on_from_the_one_before(tmp_path):
    whole, disk = trained(tmp_path / "whole", *SHORT), FullDisk(0)
    with patch.object(checkpoint_files, "save_file", disk.save_file), at_step(30, lambda: setattr(disk, "left", 100)):
        finished = train(tmp_path / "run", *SHORT, "checkpoint_steps=10")
    assert finished.code == 1
    line = only_error(finished)
    assert "the last state could not be saved" in line
    assert "No space left on device" in line
    newest = line.split("the newest checkpoint is ")[1]
    assert (tmp_path / "run" / "checkpoints" / newest).exists()
    assert not (tmp_path / "run" / "summary.json").exists()
    trained(tmp_path / "run", *SHORT, "checkpoint_steps=10")
    assert_ended_alike(whole, tmp_path / "run")


def only_error(finished: Finished) -> str:
    (line,) = (line for line in finished.stderr.splitlines() if line.startswith("error: "))
    return line


@pytest.fixture
def small_disk(tmp_path):
    """A file system that a run fills."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount here")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_run_on_a_disk_that_is_too_small_says_so_and_goes_on_on_a_larger_one(small_disk, tmp_path):
    settings = (*SHORT, "checkpoint_steps=10", "keep_checkpoints=20")
    whole = trained(tmp_path / "whole", *settings)
    finished = train(small_disk / "run", *settings)
    assert finished.code == 1, finished.stderr
    assert "No space left on device" in finished.stderr
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    trained(small_disk / "run", *settings)
    assert_ended_alike(whole, small_disk / "run")


def test_a_folder_that_becomes_read_only_keeps_what_was_saved(small_disk):
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    settings = (*SHORT, "checkpoint_steps=10")
    trained(small_disk / "run", *NARROW, "recipe.epochs=1")
    checkpoints = small_disk / "run" / "checkpoints"
    held = {path: path.read_bytes() for path in checkpoints.rglob("*") if path.is_file()}
    subprocess.run(["mount", "--bind", checkpoints, checkpoints], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", checkpoints], check=True)
        finished = train(small_disk / "run", *settings)
    finally:
        subprocess.run(["umount", checkpoints], check=True)
    assert finished.code == 1, finished.stderr
    assert "Read-only file system" in only_error(finished)
    assert "the newest checkpoint is step-000000022" in only_error(finished)
    assert {path: path.read_bytes() for path in checkpoints.rglob("*") if path.is_file()} == held


def test_images_that_cannot_be_read_any_more_end_the_run_in_one_line_which_is_no_mistake_of_the_user(tmp_path):
    read, calls = Loader._read, [0]

    def lost(self, request):
        calls[0] += 1
        if calls[0] > 12:
            raise ConfigurationError("cannot read shard 3: Input/output error")
        return read(self, request)

    with patch.object(Loader, "_read", lost):
        finished = train(tmp_path / "run", *SHORT, "checkpoint_steps=10", "loader.threads=1")
    assert finished.code == 1
    assert only_error(finished) == "error: after step 12: cannot read shard 3: Input/output error"
    verify_checkpoint(tmp_path / "run" / "checkpoints" / "step-000000010-unvalidated")


@pytest.mark.parametrize("tower", [0, 1])
def test_activations_that_are_not_finite_are_traced_to_their_layer(tower, tmp_path):
    forward, spoils, calls = LocalResponseNorm.forward, [False], [0]

    def spoilt(self, maps):
        calls[0] += spoils[0]
        # The calls of a step: lrn1 and lrn2 of tower 0, then those of tower 1.
        return forward(self, maps) * (float("inf") if spoils[0] and calls[0] % 4 == (0 if tower else 2) else 1)

    with patch.object(LocalResponseNorm, "forward", spoilt), at_step(12, lambda: spoils.__setitem__(0, True)):
        finished = train(tmp_path / "run", *SHORT, "checkpoint_steps=10")
    assert finished.code == 1
    line = only_error(finished)
    assert "the loss at step 13 is nan" in line
    assert f"activations of lrn2 in tower {tower} (rank 0) are the first that are not finite" in line
    assert "the newest checkpoint is step-000000010-unvalidated" in line
    verify_checkpoint(tmp_path / "run" / "checkpoints" / "step-000000010-unvalidated")


def test_a_run_whose_curves_could_not_be_drawn_draws_them_when_it_is_called_again(tmp_path):
    few_steps = (*NARROW, "recipe.batch_size=700")
    run = trained(tmp_path / "run", *few_steps, "recipe.epochs=1")
    picture = run / "plots" / "learning_curve.png"
    picture.unlink()
    picture.mkdir()
    finished = train(run, *few_steps, "recipe.epochs=2")
    assert finished.code == 1
    assert "the same command tries again" in finished.stderr
    assert summary(run)["epochs"] == 1, "the summary of the epoch before"
    picture.rmdir()
    trained(run, *few_steps, "recipe.epochs=2")
    assert picture.is_file()
    assert summary(run)["epochs"] == 2
    (run / "summary.json").write_text("{")
    (run / "metrics.jsonl").unlink()
    trained(run, *few_steps, "recipe.epochs=2")
    assert summary(run)["epochs"] == 2


def refused_as_one_of_two(run: Path) -> Finished:
    """Train in two processes, of which the first cannot begin in the folder."""
    with as_under_torchrun(), patch.object(RunFolder, "begin", side_effect=OSError(30, "Read-only file system")):
        return train(run, *NARROW, "recipe.epochs=1")


@pytest.mark.parametrize("place", ["train.log", "begin"])
def test_every_process_is_told_that_a_folder_cannot_be_written_into(place, tmp_path):
    run = tmp_path / "run"
    (run / ("train.log" if place == "train.log" else "plots")).mkdir(parents=True)
    said = "Read-only file system" if place == "begin" else "Is a directory"
    finished = run_processes(2, refused_as_one_of_two, run)
    assert [each.code for each in finished] == [2, 2], finished
    lines = [line for line in finished[0].stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"error: run folder {run}: ")
    assert said in lines[0]
