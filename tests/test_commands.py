"""`describe` and `convert` do what they say, and every preset composes, parses and says how to run it."""

import json
import re
import shlex
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from alexnet_mp import ConfigurationError, build_model, load_network, to_single_device
from alexnet_mp.checkpoint import load_checkpoint, save_checkpoint
from alexnet_mp.commands import convert, describe
from alexnet_mp.commands.entry import compose
from alexnet_mp.network.table import Network, parse_network
from alexnet_mp.training.settings import parse_train_settings
from tests.processes import CHECKOUT, run_command

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
    command = [sys.executable, str(CHECKOUT / "launch" / "describe.py"), "network=paper", "json=cost.json"]
    finished = run_command(command, tmp_path)
    assert finished.code == 0, finished.stderr
    assert "60,965,224" in finished.stdout
    assert json.loads((tmp_path / "cost.json").read_text())["parameters"] == 60_965_224


@dataclass(frozen=True)
class Trained:
    """A checkpoint, and what went into it."""

    folder: Path
    state: dict[str, Tensor]
    network: Network


def saved(folder: Path, network: Network, dtype: torch.dtype = torch.float32) -> Trained:
    state = build_model(network, seed=3, dtype=dtype).state_dict()
    save_checkpoint(folder, state, network, {"epoch": 1}, timeout_seconds=10)
    return Trained(folder, state, network)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return saved(tmp_path_factory.mktemp("trained") / "checkpoint", load_network("small"))


def converted(source: Path, out: Path, *overrides: str) -> Path:
    convert.run(compose("convert", [f"source={source}", f"out={out}", *overrides]))
    return out


def metadata(file: Path) -> dict[str, str]:
    with safe_open(file, framework="pt") as opened:
        return dict(opened.metadata() or {})


def assert_bit_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert {tensor.dtype for tensor in found.values()} == {tensor.dtype for tensor in expected.values()}


def test_as_trained_there_and_back_is_bit_equal(trained: Trained, tmp_path: Path) -> None:
    file = converted(trained.folder, tmp_path / "single.safetensors")
    state, description = load_checkpoint(converted(file, tmp_path / "back"))
    assert_bit_equal(state, trained.state)
    assert parse_network(description["network"]) == trained.network


@pytest.mark.parametrize("dropout", ["authors", "inverted"])
def test_there_and_back_in_float64_is_bit_equal(dropout: str, tmp_path: Path) -> None:
    trained = saved(tmp_path / "checkpoint", load_network("small"), torch.float64)
    file = converted(trained.folder, tmp_path / "single.safetensors", f"dropout={dropout}")
    state, _ = load_checkpoint(converted(file, tmp_path / "back"))
    assert_bit_equal(state, trained.state)


def test_four_towers_there_and_back_are_bit_equal(tmp_path: Path) -> None:
    trained = saved(tmp_path / "checkpoint", load_network("small", towers=4))
    file = converted(trained.folder, tmp_path / "single.safetensors")
    state, _ = load_checkpoint(converted(file, tmp_path / "back"))
    assert_bit_equal(state, trained.state)


def test_the_file_has_tower_0_first_in_caffes_layout(trained: Trained, tmp_path: Path) -> None:
    single = load_file(converted(trained.folder, tmp_path / "single.safetensors"))
    assert {name: tuple(tensor.shape) for name, tensor in single.items() if name.endswith("weight")} == {
        "conv1.weight": (96, 3, 3, 3),
        "conv2.weight": (256, 48, 5, 5),
        "conv3.weight": (384, 256, 3, 3),
        "conv4.weight": (384, 192, 3, 3),
        "conv5.weight": (256, 192, 3, 3),
        "fc6.weight": (512, 256),  # 16 pixels end in one position of 256 maps
        "fc7.weight": (512, 512),
        "fc8.weight": (10, 512),
    }
    quarters = {
        "towers.0.fc7.own_weight": single["fc7.weight"][:256, :256],
        "towers.0.fc7.peer_weight": single["fc7.weight"][:256, 256:],
        "towers.1.fc7.peer_weight": single["fc7.weight"][256:, :256],
        "towers.1.fc7.own_weight": single["fc7.weight"][256:, 256:],
        "towers.0.conv2.weight": single["conv2.weight"][:128],
        "towers.1.conv2.weight": single["conv2.weight"][128:],
        "towers.0.fc8.own_weight": single["fc8.weight"][:, :256],
        "towers.1.fc8.own_weight": single["fc8.weight"][:, 256:],
        "towers.0.fc8.bias": single["fc8.bias"],
    }
    assert_bit_equal(quarters, {name: trained.state[name] for name in quarters})


def test_inverted_dropout_halves_the_weights_of_fc7_and_fc8_and_nothing_else(trained: Trained, tmp_path: Path) -> None:
    as_trained = load_file(converted(trained.folder, tmp_path / "as_trained.safetensors"))
    inverted = load_file(converted(trained.folder, tmp_path / "inverted.safetensors", "dropout=inverted"))
    expected = {
        name: tensor / 2 if name in ("fc7.weight", "fc8.weight") else tensor for name, tensor in as_trained.items()
    }
    assert_bit_equal(inverted, expected)


def test_the_file_says_which_weights_were_halved(trained: Trained, tmp_path: Path) -> None:
    said = metadata(converted(trained.folder, tmp_path / "single.safetensors", "dropout=inverted"))
    assert said["dropout"] == "inverted"
    halved = re.findall(r"(\w+\.\w+) x ?([\d.]+)", said["scaled"])
    assert halved == [("fc7.weight", "0.5"), ("fc8.weight", "0.5")]


def test_the_file_as_trained_says_that_nothing_was_scaled(trained: Trained, tmp_path: Path) -> None:
    said = metadata(converted(trained.folder, tmp_path / "single.safetensors"))
    assert (said["dropout"], said["scaled"]) == ("authors", "nothing")


def test_an_inverted_file_converts_back_bit_equal_without_being_told(trained: Trained, tmp_path: Path) -> None:
    file = converted(trained.folder, tmp_path / "single.safetensors", "dropout=inverted")
    state, _ = load_checkpoint(converted(file, tmp_path / "back"))
    assert_bit_equal(state, trained.state)


def test_a_network_trained_with_inverted_dropout_is_not_halved_for_it(tmp_path: Path) -> None:
    overrides = [f"+network.layers.dropout{n}.inverted=true" for n in (6, 7)]
    network = parse_network(compose("train", overrides)["network"])
    trained = saved(tmp_path / "checkpoint", network)
    file = converted(trained.folder, tmp_path / "single.safetensors", "dropout=inverted")
    assert_bit_equal(load_file(file), to_single_device(trained.state))


@pytest.fixture
def single(trained: Trained, tmp_path: Path) -> Path:
    """A single device's file."""
    return converted(trained.folder, tmp_path / "ours.safetensors")


@pytest.fixture
def foreign(trained: Trained, tmp_path: Path) -> Path:
    """A single device's file without metadata, as others write it."""
    save_file(to_single_device(trained.state), tmp_path / "foreign.safetensors")
    return tmp_path / "foreign.safetensors"


def test_a_file_from_elsewhere_needs_its_network(foreign: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"foreign\.safetensors.*network="):
        converted(foreign, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_file_from_elsewhere_converts_bit_equal_with_its_network(
    foreign: Path, trained: Trained, tmp_path: Path
) -> None:
    state, _ = load_checkpoint(converted(foreign, tmp_path / "back", "network=small"))
    assert_bit_equal(state, trained.state)


def test_a_file_from_elsewhere_that_was_trained_inverted_is_doubled_where_it_says_so(
    foreign: Path, trained: Trained, tmp_path: Path
) -> None:
    state, _ = load_checkpoint(converted(foreign, tmp_path / "back", "network=small", "dropout=inverted"))
    doubled = re.compile(r"towers\.\d\.fc[78]\.(own|peer)_weight")
    assert_bit_equal(state, {name: 2 * t if doubled.fullmatch(name) else t for name, t in trained.state.items()})


def test_a_file_from_elsewhere_that_does_not_fit_is_refused_with_both_shapes(foreign: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"conv1\.weight is \[96, 3, 3, 3\], the table wants \[96, 3, 11, 11\]"
    ):
        converted(foreign, tmp_path / "back", "network=paper")
    assert not (tmp_path / "back").exists()


def test_an_unknown_network_is_answered_with_the_known_ones(foreign: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"smal\b.*paper.*small"):
        converted(foreign, tmp_path / "back", "network=smal")


def test_a_file_is_never_overwritten(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "single.safetensors").write_text("precious")
    with pytest.raises(ConfigurationError, match=r"single\.safetensors exists already"):
        converted(trained.folder, tmp_path / "single.safetensors")
    assert (tmp_path / "single.safetensors").read_text() == "precious"


def test_a_folder_is_never_overwritten(single: Path, tmp_path: Path) -> None:
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "notes").write_text("precious")
    with pytest.raises(ConfigurationError, match="back exists already"):
        converted(single, tmp_path / "back")
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["notes"]


@pytest.mark.parametrize("file", ["tower-0.safetensors", "tower-1.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("kept", [0, 4, 0.5], ids=["nothing", "four_bytes", "half"])
def test_a_cut_off_file_of_a_checkpoint_is_named(file: str, kept: float, tmp_path: Path) -> None:
    damaged = saved(tmp_path / "checkpoint", small_without_fc6()).folder / file
    content = damaged.read_bytes()
    damaged.write_bytes(content[: int(kept * len(content)) if kept < 1 else int(kept)])
    with pytest.raises(ConfigurationError, match=re.escape(file)):
        converted(tmp_path / "checkpoint", tmp_path / "single.safetensors")
    assert not (tmp_path / "single.safetensors").exists()


def small_without_fc6() -> Network:
    """A network of few parameters."""
    kernels = [f"network.layers.{layer}.kernels=4" for layer in ("conv1", "conv2", "conv3", "conv4", "conv5")]
    return parse_network(compose("train", [*kernels, "network.layers.fc6=null"])["network"])


def test_a_missing_tower_of_a_checkpoint_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "checkpoint", small_without_fc6()).folder
    (folder / "tower-1.safetensors").unlink()
    with pytest.raises(ConfigurationError, match=r"tower-1\.safetensors"):
        converted(folder, tmp_path / "single.safetensors")


def test_a_cut_off_file_of_a_single_device_is_named(single: Path, tmp_path: Path) -> None:
    single.write_bytes(single.read_bytes()[:1000])
    with pytest.raises(ConfigurationError, match=r"ours\.safetensors"):
        converted(single, tmp_path / "back")


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere does not exist"):
        converted(tmp_path / "nowhere", tmp_path / "single.safetensors")


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(ConfigurationError, match=r"photos is not a checkpoint.*checkpoint\.json"):
        converted(tmp_path / "photos", tmp_path / "single.safetensors")


@pytest.mark.parametrize("way", ["to_one_device", "to_towers"])
def test_convert_says_where_it_cannot_write(way: str, trained: Trained, single: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="file/out"):
        converted(trained.folder if way == "to_one_device" else single, tmp_path / "file" / "out")


def test_convert_runs_from_another_folder(trained: Trained, tmp_path: Path) -> None:
    command = [sys.executable, str(CHECKOUT / "launch" / "convert.py"), f"source={trained.folder}"]
    finished = run_command([*command, "out=single.safetensors", "dropout=inverted"], tmp_path)
    assert finished.code == 0, finished.stderr
    assert "single.safetensors" in finished.stdout
    assert metadata(tmp_path / "single.safetensors")["dropout"] == "inverted"


def presets(group: str) -> list[Path]:
    return sorted((CHECKOUT / "conf" / group).glob("*.yaml"))


PRESETS = [
    (path.parent.name, path.stem) for group in ("network", "recipe", "data", "experiment") for path in presets(group)
]


@pytest.mark.parametrize("group, name", PRESETS, ids=["-".join(preset) for preset in PRESETS])
def test_every_preset_composes_and_parses(group: str, name: str) -> None:
    parse_train_settings(compose("train", [f"{group}={name}"]))


@pytest.mark.parametrize("path", presets("network"), ids=lambda path: path.stem)
def test_every_network_is_called_as_its_file_and_describes(path: Path, tmp_path: Path) -> None:
    assert described(tmp_path, f"network={path.stem}")["network"] == path.stem


@pytest.mark.parametrize("path", presets("recipe"), ids=lambda path: path.stem)
def test_every_recipe_is_called_as_its_file(path: Path) -> None:
    assert parse_train_settings(compose("train", [f"recipe={path.stem}"])).recipe.name == path.stem


@pytest.mark.parametrize(
    "network, recipe",
    [(network.stem, recipe.stem) for network, recipe in product(presets("network"), presets("recipe"))],
)
def test_every_recipe_fits_every_network(network: str, recipe: str) -> None:
    settings = parse_train_settings(compose("train", [f"network={network}", f"recipe={recipe}"]))
    settings.recipe.check(settings.network.weighted_layers, replicas=1)


def test_the_quickstart_is_the_experiment_digits() -> None:
    assert compose("train", []) == compose("train", ["experiment=digits"])


def opening_comment(path: Path) -> list[str]:
    """The lines before the first that is no comment, without Hydra's package directive."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").strip())
    return lines


def commands(path: Path) -> list[str]:
    """The commands in the opening comment; two spaces or more end one and begin a remark on it."""
    found = [
        line for line in opening_comment(path) if re.match(r"(python|torchrun)\s.*\b(launch|benchmarks)/\w+\.py", line)
    ]
    return [re.split(r"\s{2,}", line)[0] for line in found]


COMMENTED = [path for group in ("network", "recipe", "data", "experiment", ".") for path in presets(group)]


@pytest.mark.parametrize("path", COMMENTED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_preset_opens_with_a_comment_that_has_a_command(path: Path) -> None:
    assert len(opening_comment(path)) > 1
    assert commands(path), path.read_text()[:500]


@pytest.mark.parametrize("path", COMMENTED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_commands_in_a_presets_comment_compose(path: Path) -> None:
    for command in commands(path):
        program, arguments = re.search(r"/(\w+)\.py(.*)", command).groups()  # type: ignore[union-attr]
        assert (CHECKOUT / "launch" / f"{program}.py").exists() or (CHECKOUT / "benchmarks" / f"{program}.py").exists()
        overrides = [
            argument for argument in shlex.split(arguments) if "=" in argument and not argument.startswith("-")
        ]
        if (CHECKOUT / "conf" / f"{program}.yaml").exists():
            compose(program, overrides)


@pytest.mark.parametrize("path", presets("network") + presets("recipe"), ids=lambda path: path.stem)
def test_every_network_and_recipe_names_its_source(path: Path) -> None:
    assert any("Source: " in line for line in opening_comment(path))
