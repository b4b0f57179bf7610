"""benchmarks/checkpoints.py: checkpoints that load, what its JSON holds, its arithmetic, what it refuses."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import checkpoints
import pytest
import torch
from checkpoints import CheckpointsSettings, SavedTraining
from checkpoints_report import (
    Round,
    checkpoints_text,
    interval_of_median,
    summarize_checkpoints,
)
from torch import Tensor

from alexnet_mp import ConfigurationError, load_checkpoint
from alexnet_mp.checkpoint import files as checkpoint_files
from alexnet_mp.checkpoint.files import load_momentum
from alexnet_mp.checkpoint.retention import newest_checkpoint
from alexnet_mp.common.cli import compose
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.errors import NotSaved
from alexnet_mp.network.table import load_network
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.mesh import Mesh, make_mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.performance.benchmark.output import machine_values
from tests.support.checkpoints import narrow_network
from tests.support.processes import as_under_torchrun, run_processes, run_script

TINY = ["network=small", "device=cpu", "batch_size=4", "rounds=3", "steps=1", "warmup_steps=1"]
PARTS = {"with_one", "without", "held", "finite", "metrics", "copy", "written", "synchronous"}
SMALL_PARAMETERS = 2_701_194  # README.md, "Which network"


def settings_of(*overrides: str) -> CheckpointsSettings:
    return from_mapping(CheckpointsSettings, compose("benchmark/checkpoints", list(overrides)), "")


def training_in(folder: Path, mesh: Mesh) -> SavedTraining:
    settings = replace(settings_of("batch_size=2", "timeout_seconds=10"), network=narrow_network())
    return SavedTraining(settings, mesh, folder, {"of": "a test"})


def alone(folder: Path) -> SavedTraining:
    return training_in(folder, Mesh(choose_placement("simulated", "cpu", 2, Launch()), None))


def train_and_save(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], float]:
    """What one of two processes held when it saved, and the seconds until its part was written; then it trained on."""
    mesh = make_mesh(choose_placement("auto", "cpu", 2, Launch.from_environment(*rank_and_world())), 30)
    training = training_in(folder, mesh)
    training.steps(2)
    state = training.run.state
    held = [{name: t.detach().clone() for name, t in of.items()} for of in (state.model.state_dict(), state.momentum())]
    training.save()
    training.steps(1)
    training.run.checkpointer.finish()
    return held[0], held[1], training.run.checkpointer.timing.writing


def rank_and_world() -> tuple[int, int]:
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def test_two_processes_leave_one_whole_checkpoint_of_the_moment_at_which_it_was_begun(tmp_path: Path) -> None:
    results = run_processes(2, train_and_save, tmp_path)
    newest = newest_checkpoint(tmp_path / "checkpoints")
    assert newest.folder is not None and newest.folder.name == "step-000000002-unvalidated" and not newest.damaged
    weights, description = load_checkpoint(newest.folder)
    momentum = load_momentum(newest.folder, [0, 1])
    for read, position in ((weights, 0), (momentum, 1)):
        held = results[0][position] | results[1][position]
        assert read.keys() == held.keys()
        assert all(torch.equal(tensor, held[name]) for name, tensor in read.items())
    assert description["progress"]["step"] == 2
    assert description["metrics_bytes"] == sum(map(len, (tmp_path / "metrics.jsonl").open().readlines()[:2]))
    assert all(seconds > 0 for *_, seconds in results)


def test_only_as_many_checkpoints_are_kept_as_in_training(tmp_path: Path) -> None:
    training = alone(tmp_path)
    for _ in range(4):
        training.steps(1)
        training.save()
        training.run.checkpointer.finish()
    assert [path.name.split("-")[1][-1] for path in sorted((tmp_path / "checkpoints").iterdir())] == ["3", "4"]
    assert compose("train", [])["keep_checkpoints"] == 2


def test_a_disk_that_does_not_take_a_checkpoint_ends_the_measurement(tmp_path: Path) -> None:
    training = alone(tmp_path)
    training.steps(1)
    with patch.object(checkpoint_files, "save_file", side_effect=OSError("no space left")):
        training.save()
        with pytest.raises(NotSaved, match="no space left"):
            training.run.checkpointer.finish()


def test_weights_that_are_not_finite_end_the_measurement(tmp_path: Path) -> None:
    training = alone(tmp_path)
    next(iter(training.run.state.parameters().values())).data[0] = float("nan")
    with pytest.raises(FloatingPointError, match="not finite"):
        training.save()
    assert not (tmp_path / "checkpoints").exists()


def measure_as_rank(folder: Path) -> None:
    # The process serves other tests too, and glibc cannot be told to change its mind.
    with as_under_torchrun(), patch.object(checkpoints, "keep_large_blocks"):
        checkpoints.run(compose("benchmark/checkpoints", [*TINY, f"folder={folder}", f"json={folder / 'found.json'}"]))


def test_two_processes_leave_one_report_and_nothing_else(tmp_path: Path) -> None:
    run_processes(2, measure_as_rank, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]
    found = json.loads((tmp_path / "found.json").read_text(), parse_constant=pytest.fail)
    assert (found["placement"], found["processes"], found["machine"]["threads"]) == ("distributed", 2, 1)
    assert found["seconds"].keys() == PARTS
    assert all(len(part["rounds"]) == 3 and min(part["rounds"]) > 0 for part in found["seconds"].values())
    tensors = 2 * 4 * SMALL_PARAMETERS  # weights and momentum, in float32
    assert tensors < found["checkpoint_bytes"] < 1.01 * tensors
    assert found["machine"]["versions"]["torch"] == torch.__version__


def test_one_process_prints_the_machine_the_disk_and_the_cost(tmp_path: Path) -> None:
    finished = run_script("benchmarks/checkpoints.py", [*TINY, "threads=1", "rounds=1"], tmp_path)
    assert finished.code == 0, finished.stderr
    for expected in (r"^CPU \(.*torch .* on ", "simulated, processes x threads 1 x 1; 21.6 MB", "A checkpoint costs"):
        assert re.search(expected, finished.stdout), finished.stdout
    assert not list(tmp_path.iterdir())


def a_round(with_one: float, without: float, written: float = 1.0) -> Round:
    return Round(with_one, without, synchronous=2.0, finite=0.1, metrics=0.1, copy=0.2, written=written)


def test_a_checkpoint_costs_the_median_of_what_its_block_takes_longer_in_each_round() -> None:
    # Differences 0.5, 0.8, 0.9; the difference of the medians would be 1.3.
    rounds = [a_round(10.0, 9.5), a_round(10.8, 10.0, written=10.5), a_round(9.9, 9.0)]
    found = summarize_checkpoints(rounds, first_held=0.7, checkpoint_bytes=10)
    assert found["cost_seconds"] == pytest.approx(0.8)
    assert found["throughput_lost"] == pytest.approx(0.8 / 60)
    assert found["throughput_lost_synchronous"] == pytest.approx(2 / 60)
    assert found["share_held"] == pytest.approx(0.4 / 0.8)
    assert found["cost_interval"] is None and found["late"] == 1


def test_the_interval_of_a_median_is_that_of_the_sign_test() -> None:
    # Conover, Practical Nonparametric Statistics, "confidence interval for a quantile": the k-th value from each end,
    # with twice the binomial probability of fewer than k below 5 %. For 12 values: 2 (1 + 12 + 66) / 4096 = 3.9 %.
    assert interval_of_median([float(value) for value in range(12, 0, -1)]) == [3.0, 10.0]
    assert interval_of_median([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == [1.0, 6.0]  # 2 / 64 = 3.1 %
    assert interval_of_median([1.0, 2.0, 3.0, 4.0, 5.0]) is None  # 2 / 32 = 6.3 %


def test_a_checkpoint_that_is_not_whole_when_its_block_ends_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    machine = {**machine_values(0.0), "disk": ""}
    about = {
        "network": "small",
        "batch_size": 4,
        "placement": "simulated",
        "processes": 1,
        "seed": 0,
        "machine": machine,
    }
    rounds = [a_round(10.0, 9.0, written=9.7), a_round(10.0, 9.0, written=9.5)]  # held for 0.4 before
    text = checkpoints_text({**about, "rounds": 2, "steps": 3, **summarize_checkpoints(rounds, 0.7, 10)})
    assert "In 1 of 2 rounds the checkpoint was whole only after the block" in text and "steps=6" in text


def test_the_paper_is_what_is_measured_by_default() -> None:
    settings = settings_of()
    assert settings.network == load_network("paper") and settings.batch_size == 64


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rounds=0", "rounds is 0, must be positive"),
        ("warmup_steps=0", "warmup_steps is 0, must be positive"),
        ("threads=-1", "threads is -1, must be positive"),
        ("folder=nowhere", "folder is nowhere, must be a folder that exists and can be written to"),
        ("json=nowhere/found.json", "json is nowhere/found.json, must lie in a folder that exists"),
    ],
)
def test_wrong_settings_end_in_one_line(override: str, message: str, tmp_path: Path) -> None:
    finished = run_script("benchmarks/checkpoints.py", [override], tmp_path)
    assert finished.code == 2
    assert finished.stderr.startswith(f"error: {message}") and finished.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    with patch.object(os, "access", return_value=False), pytest.raises(ConfigurationError, match="can be written to"):
        settings_of(f"folder={tmp_path}")
