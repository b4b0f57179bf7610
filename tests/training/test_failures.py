"""What fails within a run, a disk, the images or a layer, ends it in one line, and it goes on once that works again."""

import shutil
import subprocess
from pathlib import Path
from unittest.mock import patch

import pytest
from safetensors import SafetensorError

from alexnet_mp import ConfigurationError
from alexnet_mp.checkpoint import files as checkpoint_files
from alexnet_mp.checkpoint.files import verify_checkpoint
from alexnet_mp.data.loader import Loader
from alexnet_mp.model.layers.norm import LocalResponseNorm
from alexnet_mp.training.run_folder import RunFolder
from tests.support.disturbed import assert_ended_alike, at_step, only_error, train, trained
from tests.support.processes import Finished, as_under_torchrun, run_processes
from tests.training.test_train import NARROW, summary

SHORT = (*NARROW, "recipe.epochs=2")


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


def test_a_disk_that_is_full_for_a_while_costs_checkpoints_and_no_more(after_two_epochs, tmp_path):
    disk = FullDisk(0)
    with patch.object(checkpoint_files, "save_file", disk.save_file), at_step(5, lambda: setattr(disk, "left", 3)):
        finished = train(tmp_path / "run", *SHORT, "checkpoint_steps=10")
    assert finished.code == 0, finished.stderr
    assert finished.stderr.count("No space left on device (os error 28); the newest checkpoint is") == 3
    assert_ended_alike(after_two_epochs, tmp_path / "run")


def test_a_last_state_that_cannot_be_saved_ends_the_run_with_an_error_and_it_goes_on_from_the_one_before(
    after_two_epochs, tmp_path
):
    disk = FullDisk(0)
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
    assert_ended_alike(after_two_epochs, tmp_path / "run")


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


def test_a_run_on_a_disk_that_is_too_small_says_so_and_goes_on_on_a_larger_one(small_disk, after_two_epochs):
    settings = (*SHORT, "checkpoint_steps=10", "keep_checkpoints=20")
    finished = train(small_disk / "run", *settings)
    assert finished.code == 1, finished.stderr
    assert "No space left on device" in finished.stderr
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    trained(small_disk / "run", *settings)
    assert_ended_alike(after_two_epochs, small_disk / "run")


def test_a_folder_that_becomes_read_only_keeps_what_was_saved(small_disk, after_one_epoch):
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    settings = (*SHORT, "checkpoint_steps=10")
    shutil.copytree(after_one_epoch, small_disk / "run")
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
