"""The main job, whole: what a run writes, and that it writes the same under every placement."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from alexnet_mp.checkpoint.files import load_checkpoint
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import load_network, parse_network
from alexnet_mp.training import trainer
from alexnet_mp.training.checkpointing import Checkpointer
from tests.support.processes import CHECKOUT, Finished, run_command, run_script, run_script_in, torchrun

TRAIN = str(CHECKOUT / "launch" / "train.py")

# The quickstart with fewer kernels and units, for what does not depend on their number.
NARROW = (
    *(f"network.layers.conv{n}.kernels=8" for n in range(1, 6)),
    *(f"network.layers.fc{n}.units=16" for n in (6, 7)),
)


def in_one_process(folder: Path, *overrides: str, **options) -> Finished:
    return run_command([sys.executable, TRAIN, f"run_dir={folder}", *overrides], folder.parent, **options)


def in_this_process(folder: Path, *overrides: str) -> Finished:
    return run_script("launch/train.py", [f"run_dir={folder}", *overrides], folder.parent)


def in_workers(count: int, folder: Path, *overrides: str, **options) -> Finished:
    return run_script_in(count, "launch/train.py", [f"run_dir={folder}", *overrides], folder.parent, **options)


def in_processes(count: int, folder: Path, *overrides: str, **options) -> Finished:
    return torchrun(count, [TRAIN, f"run_dir={folder}", *overrides], folder.parent, **options)


def metrics(folder: Path, *keys: str) -> list[tuple]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [tuple(line.get(key) for key in ("kind", "step", *keys)) for line in lines]


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory) -> tuple[Path, Finished]:
    """The quickstart for one epoch, by `torchrun launch/train.py` with one process."""
    folder = tmp_path_factory.mktemp("run") / "one"
    return folder, in_processes(1, folder, "recipe.epochs=1")


def test_the_quickstart_says_what_it_does_and_where_it_wrote(one_epoch):
    folder, finished = one_epoch
    assert finished.code == 0, finished.stderr
    for words in (
        "small: 2 towers, 2,701,194 parameters (1,350,602 + 1,350,592)",
        "simulated (all towers on one device), 1 replica",
        "1,797 scanned digits",
        "60,965,224 parameters on ILSVRC-2012",
        "epoch   1",
        "22/22",
        *(str(folder / name) for name in ("metrics.jsonl", "summary.json", "plots/learning_curve.png", "checkpoints")),
    ):
        assert words in finished.stderr, words
    assert (folder / "config.yaml").exists()
    assert "top-1 error" in (folder / "train.log").read_text()
    assert Image.open(folder / "plots" / "learning_curve.png").size == (1660, 680)


def test_metrics_have_a_line_for_every_step_and_every_validation(one_epoch):
    lines = [json.loads(line) for line in (one_epoch[0] / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["train"] * 22 + ["validation"]
    assert lines[0].keys() == {"kind", "step", "epoch", "loss", "learning_rate", "images_per_second"}
    assert lines[-1].keys() == {"kind", "step", "epoch", "loss", "top1_error", "top5_error"}
    assert [line["step"] for line in lines] == [*range(1, 23), 22]
    assert 0 <= lines[-1]["top5_error"] <= lines[-1]["top1_error"] <= 1


def test_the_summary_records_what_the_run_was(one_epoch):
    found = summary(one_epoch[0])
    assert found["parameters"] == 2_701_194
    assert found["parameters_per_tower"] == [1_350_602, 1_350_592]
    assert (found["network"], found["placement"], found["world_size"], found["replicas"]) == (
        "small",
        "simulated",
        1,
        1,
    )
    assert (found["steps"], found["epochs"], found["seed"]) == (22, 1, 0)
    floats = 128 * 3 * 3 + 128 + 256  # pool2, pool5 and fc6 of a tower, both ways; the logits only forward
    assert found["crossing_bytes_per_step"] == 64 * 4 * (2 * floats + 10)
    assert found["versions"]["torch"] == torch.__version__
    assert found["command"] == "torchrun launch/train.py recipe.epochs=1"
    assert len(found["peak_memory_bytes_per_tower"]) == 2
    for key in ("seconds", "images_per_second", "train_loss", "validation_loss", "device", "commit"):
        assert key in found


def test_the_checkpoint_holds_both_towers_and_the_table(one_epoch):
    folder, _ = one_epoch
    state, description = load_checkpoint(folder / "checkpoints" / summary(folder)["checkpoint"])
    assert sum(tensor.numel() for tensor in state.values()) == 2_701_194
    assert {name.split(".")[1] for name in state} == {"0", "1"}
    progress = description["progress"]
    assert (progress["epoch"], progress["samples_seen"], description["seed"]) == (1, 22 * 64, 0)
    assert description["network"] == load_network("small").to_mapping()


# Another learning rate in the second epoch of two; in the quickstart, in the twelfth of fifteen.
SHORT = (*NARROW, "recipe.epochs=2", "recipe.schedule.milestones=[{after_epoch: 1, learning_rate: 0.002}]")


@pytest.mark.parametrize(
    ("overrides", "epochs"), [(SHORT, 2), pytest.param((), 15, marks=pytest.mark.slow)], ids=["short", "quickstart"]
)
def test_two_processes_train_a_whole_run_bit_equal_to_one(overrides, epochs, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert in_this_process(one, *overrides).code == 0
    assert in_workers(2, two, *overrides, deadline=240).code == 0
    keys = ("epoch", "loss", "learning_rate", "top1_error", "top5_error")
    assert metrics(two, *keys) == metrics(one, *keys)
    assert len(metrics(one)) == epochs * 22 + epochs
    assert {rate for kind, _, rate in metrics(one, "learning_rate") if kind == "train"} == {0.02, 0.002}
    assert summary(two)["placement"] == "distributed"
    (weights, description), (of_two, _) = (
        load_checkpoint(folder / "checkpoints" / summary(folder)["checkpoint"]) for folder in (one, two)
    )
    expected = network_cost(parse_network(description["network"])).crossing_bytes_per_step(64)
    assert summary(two)["crossing_bytes_per_step"] == summary(one)["crossing_bytes_per_step"] == expected
    assert weights.keys() == of_two.keys()
    assert all(torch.equal(tensor, of_two[name]) for name, tensor in weights.items())


def test_the_seed_decides_the_run(after_one_epoch, tmp_path):
    again, other = tmp_path / "again", tmp_path / "other"
    assert in_this_process(again, *NARROW, "recipe.epochs=1").code == 0
    assert in_this_process(other, *NARROW, "recipe.epochs=1", "seed=1").code == 0
    assert metrics(again, "loss") == metrics(after_one_epoch, "loss")
    assert metrics(other, "loss") != metrics(after_one_epoch, "loss")


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    finished = in_this_process(tmp_path / "run", "recipe.weights.learning_rate=1e20", "recipe.epochs=1")
    assert finished.code == 1
    assert "the loss at step" in finished.stderr
    assert "lower the learning rate" in finished.stderr
    assert "the loss at step" in (tmp_path / "run" / "train.log").read_text()


def test_weights_that_the_last_step_spoilt_do_not_end_as_a_result(tmp_path):
    rates = [f"recipe.{kind}.learning_rate=1e20" for kind in ("weights", "biases")]
    one_step = ["recipe.epochs=1", "recipe.batch_size=1400", "recipe.schedule.milestones=[]"]
    finished = in_this_process(tmp_path / "run", *NARROW, *rates, *one_step)
    assert finished.code == 1
    assert "the validation loss at step 1 is" in finished.stderr
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.parametrize("every", [1, 5])
def test_time_that_checkpoints_hold_training_is_none_of_its_steps(every, tmp_path, monkeypatch):
    seconds = 0.0

    def lasting(duration, function):
        def call(*arguments):
            nonlocal seconds
            seconds += duration
            return function(*arguments)

        return call

    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: seconds))
    monkeypatch.setattr(trainer.Trainer, "step", lasting(1, trainer.Trainer.step))
    monkeypatch.setattr(Checkpointer, "save", lasting(1000, Checkpointer.save))
    overrides = [*NARROW, "recipe.epochs=1", "checkpoint_steps=3", f"log_every_steps={every}"]
    assert in_this_process(tmp_path / "run", *overrides).code == 0
    assert {speed for kind, _, speed in metrics(tmp_path / "run", "images_per_second") if kind == "train"} == {64}
    assert summary(tmp_path / "run")["seconds"] == 22


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_quickstart_learns_to_read_digits(seed, tmp_path):
    assert in_one_process(tmp_path / "run", f"seed={seed}", threads=2, deadline=240).code == 0
    assert summary(tmp_path / "run")["top1_error"] <= 0.05
