"""`describe` prints and writes what a network costs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from alexnet_mp import ConfigurationError
from alexnet_mp.commands import describe
from alexnet_mp.common.cli import compose
from alexnet_mp.common.presets import preset_names
from alexnet_mp.model.build import build_model
from alexnet_mp.training.initial_logits import initial_logits
from alexnet_mp.training.train import prepare_run
from tests.support.presets import presets
from tests.support.processes import run_script

# Per tower of the paper's network (§3.5): kernels or units, inputs that one of them reads, and positions of the output.
WEIGHTS_OF_A_TOWER = {
    "conv1": 48 * 3 * 11 * 11,
    "conv2": 128 * 48 * 5 * 5,
    "conv3": 192 * 256 * 3 * 3,
    "conv4": 192 * 192 * 3 * 3,
    "conv5": 128 * 192 * 3 * 3,
    "fc6": 2048 * 256 * 6 * 6,
    "fc7": 2048 * 4096,
    "fc8": 1000 * 2048,
}
BIASES_OF_A_TOWER = {"conv1": 48, "conv2": 128, "conv3": 192, "conv4": 192, "conv5": 128, "fc6": 2048, "fc7": 2048}
POSITIONS = {"conv1": 55 * 55, "conv2": 27 * 27, "conv3": 13 * 13, "conv4": 13 * 13, "conv5": 13 * 13}
POOL2, POOL5, UNITS, CLASSES = 128 * 13 * 13, 128 * 6 * 6, 2048, 1000


def described(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    """What the describe command writes as JSON."""
    describe.run(compose("describe", [*overrides, f"json={tmp_path / 'cost.json'}"]))
    written: dict[str, Any] = json.loads((tmp_path / "cost.json").read_text())
    return written


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return described(tmp_path_factory.mktemp("paper"), "network=paper")


def test_the_papers_parameters_are_counted_tower_by_tower(paper: dict[str, Any]) -> None:
    tower_1 = sum(WEIGHTS_OF_A_TOWER.values()) + sum(BIASES_OF_A_TOWER.values())
    tower_0 = tower_1 + CLASSES  # it owns fc8's bias
    assert (tower_0, tower_1, tower_0 + tower_1) == (30_483_112, 30_482_112, 60_965_224)
    assert paper["parameters_per_tower"] == [tower_0, tower_1]
    assert paper["parameters"] == tower_0 + tower_1


def test_the_papers_crossings_are_counted_an_image_and_direction(paper: dict[str, Any]) -> None:
    backward = POOL2 + POOL5 + UNITS  # into conv3, fc6 and fc7
    forward = backward + CLASSES  # the partial logits, whose gradient does not return
    assert (forward, backward) == (29_288, 28_288)
    assert (paper["crossing_floats_forward"], paper["crossing_floats_backward"]) == (forward, backward)


def test_the_papers_multiply_adds_are_724_million(paper: dict[str, Any]) -> None:
    expected = 2 * sum(weights * POSITIONS.get(layer, 1) for layer, weights in WEIGHTS_OF_A_TOWER.items())
    assert paper["multiply_adds"] == expected == 724_406_816


@pytest.mark.parametrize("layer", WEIGHTS_OF_A_TOWER)
def test_a_layers_parameters_and_multiply_adds_are_the_papers(layer: str, paper: dict[str, Any]) -> None:
    row = next(row for row in paper["layers"] if row["name"] == layer)
    weights, biases = WEIGHTS_OF_A_TOWER[layer], BIASES_OF_A_TOWER.get(layer, 0)
    assert row["parameters_per_tower"] == [weights + (CLASSES if layer == "fc8" else biases), weights + biases]
    assert row["parameters"] == sum(row["parameters_per_tower"])
    assert row["multiply_adds"] == 2 * weights * POSITIONS.get(layer, 1)


@pytest.mark.parametrize(
    "layer, reads, output_shape, forward, backward",
    [
        ("conv1", "image", [48, 55, 55], 0, 0),
        ("pool1", "own", [48, 27, 27], 0, 0),
        ("conv2", "own", [128, 27, 27], 0, 0),
        ("pool2", "own", [128, 13, 13], 0, 0),
        ("conv3", "both", [192, 13, 13], POOL2, POOL2),
        ("conv4", "own", [192, 13, 13], 0, 0),
        ("conv5", "own", [128, 13, 13], 0, 0),
        ("pool5", "own", [128, 6, 6], 0, 0),
        ("fc6", "both", [2048], POOL5, POOL5),
        ("fc7", "both", [2048], UNITS, UNITS),
        ("fc8", "own", [1000], CLASSES, 0),
    ],
)
def test_a_layers_shape_and_crossing_are_the_papers(
    layer: str, reads: str, output_shape: list[int], forward: int, backward: int, paper: dict[str, Any]
) -> None:
    row = next(row for row in paper["layers"] if row["name"] == layer)
    assert (row["reads"], row["output_shape"]) == (reads, output_shape)
    assert (row["crossing_floats_forward"], row["crossing_floats_backward"]) == (forward, backward)


def test_layers_come_in_the_order_in_which_an_image_meets_them(paper: dict[str, Any]) -> None:
    convolutions = [f"{kind}{n}" for n in (1, 2) for kind in ("conv", "relu", "lrn", "pool")]
    convolutions += ["conv3", "relu3", "conv4", "relu4", "conv5", "relu5", "pool5"]
    names = [*convolutions, "fc6", "relu6", "dropout6", "fc7", "relu7", "dropout7", "fc8"]
    assert [row["name"] for row in paper["layers"]] == names


@pytest.mark.parametrize(
    "network, parameters",
    # What conv2, conv4 and conv5 of two towers leave out: the other tower's maps.
    [
        ("ungrouped", 60_965_224 + 2 * (128 * 48 * 25 + 192 * 192 * 9 + 128 * 192 * 9)),
        ("original_2012", 60_965_224),
        (
            "one_column",
            48 * (3 * 121 + 1)
            + 128 * (48 * 25 + 1)
            + 192 * (128 * 9 + 1)
            + 192 * (192 * 9 + 1)
            + 256 * (192 * 9 + 1)
            + 4096 * (256 * 36 + 1)
            + 4096 * (4096 + 1)
            + 1000 * (4096 + 1),
        ),
    ],
)
def test_the_other_networks_have_their_known_parameters(network: str, parameters: int, tmp_path: Path) -> None:
    known = {"ungrouped": 62_378_344, "original_2012": 60_965_224, "one_column": 59_798_312}
    assert described(tmp_path, f"network={network}")["parameters"] == parameters == known[network]


def test_on_one_tower_nothing_crosses(tmp_path: Path) -> None:
    cost = described(tmp_path, "network=ungrouped")
    assert (cost["crossing_floats_forward"], cost["crossing_floats_backward"]) == (0, 0)
    assert cost["parameters_per_tower"] == [62_378_344]


def test_the_papers_kernels_on_one_tower_are_the_ungrouped_network(tmp_path: Path) -> None:
    assert described(tmp_path, "network=paper", "towers=1")["parameters"] == 62_378_344


def test_an_override_of_the_table_is_described(tmp_path: Path) -> None:
    cost = described(tmp_path, "network=paper", "network.classes=10")
    assert cost["parameters"] == 60_965_224 - 990 * (4096 + 1)


def test_the_printed_table_ends_in_the_towers_and_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    describe.run(compose("describe", ["network=paper"]))
    *_, tower_0, tower_1, total = capsys.readouterr().out.splitlines()
    assert tower_0.split()[:3] == ["tower", "0", "30,483,112"]
    assert tower_1.split()[:3] == ["tower", "1", "30,482,112"]
    assert total.split()[:2] == ["total", "60,965,224"]
    # Each tower sends its 29,288 floats of four bytes forward; the total is of both.
    assert tower_1.split()[-2:] == [f"{4 * 29_288:,}", f"{4 * 28_288:,}"]
    assert total.split()[-2:] == [f"{8 * 29_288:,}", f"{8 * 28_288:,}"]


def test_describe_says_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"cost\.json"):
        describe.run(compose("describe", [f"json={tmp_path / 'file' / 'cost.json'}"]))


def test_describe_runs_from_another_folder(tmp_path: Path) -> None:
    finished = run_script("launch/describe.py", ["network=paper", "json=cost.json"], tmp_path)
    assert finished.code == 0, finished.stderr
    assert "60,965,224" in finished.stdout
    assert json.loads((tmp_path / "cost.json").read_text())["parameters"] == 60_965_224


@pytest.mark.parametrize("name", preset_names("network"))
def test_every_network_is_called_as_its_file_and_describes(name: str, tmp_path: Path) -> None:
    assert described(tmp_path, f"network={name}")["network"] == name


LINEAR = {"kind": "classifier", "std": 0.02, "bias": 0}


def test_the_spread_of_the_initial_logits_is_that_of_the_first_batch() -> None:
    one_row = {"name": "linear", "towers": 1, "image": [3, 16, 16], "classes": 10, "layers": {"fc": LINEAR}}
    run = prepare_run({**compose("train", ["seed=3", "recipe.batch_size=40"]), "network": one_row})
    images = run.preprocess(next(run.loader.training(0)), torch.device("cpu")).flatten(1).double().numpy()
    weight = build_model(run.settings.network, seed=3).state_dict()["towers.0.fc.own_weight"].double().numpy()
    logits = np.array([weight @ image for image in images])  # [40, 10]
    expected = np.sqrt(((logits - logits.mean(axis=0)) ** 2).mean())
    found = initial_logits(run)
    assert found.spread == pytest.approx(expected, rel=1e-5)
    assert found.share == pytest.approx(expected / np.sqrt((logits**2).mean()), rel=1e-5)
    assert (found.images, found.classes, found.data) == (40, 10, "digits")


def test_flat_initial_logits_are_warned_of_and_one_change_ends_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = ["network=paper", "recipe=paper", "data=digits", "network.image=[3,96,96]", "network.classes=10"]
    text += ["recipe.batch_size=16"]
    flat = described(tmp_path, *text)["initial_logits"]["share"]
    assert flat < 0.03
    *_, line, warning = capsys.readouterr().out.splitlines()
    assert f" {flat:.1%} of their size (16 images of digits)" in line
    assert "so flat that the loss may stand at ln(10) = 2.30 for" in warning and "ablation=std_of_145" in warning
    larger = described(tmp_path, *text, "ablation=std_of_145")["initial_logits"]["share"]
    assert larger > 0.03 and "warning" not in capsys.readouterr().out
    learns = described(tmp_path, "experiment=digits")["initial_logits"]
    assert learns["images"] == 64 and "warning" not in capsys.readouterr().out


def test_data_are_described_with_a_recipe() -> None:
    with pytest.raises(ConfigurationError, match="add recipe=NAME"):
        describe.run(compose("describe", ["data=digits", "ablation=no_color_noise"]))


def test_what_an_experiment_says_is_of_training_or_of_the_network() -> None:
    said = {key for path in presets("experiment") for key in yaml.safe_load(path.read_text())}
    assert said <= {*describe.OF_TRAINING, "defaults", "network", "towers"}
