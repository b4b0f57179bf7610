"""Pretraining and fine-tuning: a run begins with another's weights, all but the layers named."""

import shutil
from pathlib import Path

import pytest
import torch

from alexnet_mp import build_model
from alexnet_mp.checkpoint.files import load_checkpoint
from alexnet_mp.network.table import parse_network
from tests.support.processes import Finished, run_script
from tests.training.test_train import NARROW, in_workers

STILL = ("recipe.weights.learning_rate=0", "recipe.biases.learning_rate=0", "recipe.schedule.milestones=[]")


def train(folder: Path, *overrides: str) -> Finished:
    return run_script("launch/train.py", [f"run_dir={folder}", "recipe.epochs=1", *NARROW, *overrides], folder.parent)


def checkpoint(folder: Path) -> Path:
    (found,) = (folder / "checkpoints").iterdir()
    return found


@pytest.fixture(scope="module")
def pretrained(after_one_epoch) -> Path:
    return checkpoint(after_one_epoch)


def assert_has_all_but_fc8(folder: Path, pretrained: Path, seed: int) -> None:
    found, description = load_checkpoint(checkpoint(folder))
    theirs, _ = load_checkpoint(pretrained)
    drawn = build_model(parse_network(description["network"]), seed=seed).state_dict()
    for name, tensor in found.items():
        assert torch.equal(tensor, (drawn if ".fc8." in name else theirs)[name]), name


def test_a_run_begins_with_the_weights_of_another_but_the_layers_named(tmp_path: Path, pretrained: Path) -> None:
    initial = [f"initial_weights.checkpoint={pretrained}", "initial_weights.but=[fc8]", "seed=5"]
    otherwise = ["recipe.input.pixel_divisor=5", "+network.layers.dropout6.inverted=true"]
    finished = train(tmp_path / "one", *initial, *STILL, *otherwise)
    assert finished.code == 0, finished.stderr
    assert (
        "begins     with the weights of a run whose recipe.input.pixel_divisor was 64.0 and is 5.0" in finished.stderr
    )
    assert "network.layers.dropout6.inverted was False and is True" in finished.stderr
    assert_has_all_but_fc8(tmp_path / "one", pretrained, seed=5)


def test_two_replicas_of_two_processes_begin_alike(tmp_path: Path, pretrained: Path) -> None:
    initial = [f"initial_weights.checkpoint={pretrained}", "initial_weights.but=[fc8]", "seed=5"]
    finished = in_workers(4, tmp_path / "four", "recipe.epochs=1", *NARROW, *initial, *STILL)
    assert finished.code == 0, finished.stderr
    assert_has_all_but_fc8(tmp_path / "four", pretrained, seed=5)


def test_a_fine_tuned_run_goes_on_from_its_own_checkpoint(tmp_path: Path, pretrained: Path) -> None:
    copy = shutil.copytree(pretrained, tmp_path / "copy")
    initial = [f"initial_weights.checkpoint={copy}"]
    assert train(tmp_path / "run", *initial, *STILL).code == 0
    shutil.rmtree(copy)
    finished = train(tmp_path / "run", *initial, *STILL, "recipe.epochs=2")
    assert finished.code == 0, finished.stderr
    assert "going on" in finished.stderr


@pytest.mark.parametrize(
    "overrides, says",
    [
        (
            ["network.layers.conv2.kernels=6"],
            "towers.0.conv2.weight is [8, 8, 5, 5], the network's [6, 8, 5, 5]; towers.0.conv3.own_weight",
        ),
        (["network.layers.conv2.kernels=6"], "to draw such layers anew: initial_weights.but=[conv2,conv3]"),
        (["network.layers.fc7=null"], "is not in the network; to draw such layers anew: initial_weights.but=[fc7]"),
        (["initial_weights.but=[fc9]"], "initial_weights.but names 'fc9'; layers: conv1, conv2,"),
        (["initial_weights.checkpoint=nowhere"], "nowhere is not a checkpoint"),
    ],
)
def test_weights_that_do_not_fit_are_an_error_that_says_which(
    overrides: list[str], says: str, tmp_path: Path, pretrained: Path
) -> None:
    finished = train(tmp_path / "run", f"initial_weights.checkpoint={pretrained}", *overrides)
    assert finished.code == 2
    assert says in finished.stderr
