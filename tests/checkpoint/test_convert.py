"""`convert` takes weights from towers to one device and back."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from alexnet_mp import ConfigurationError, build_model, load_network, to_single_device
from alexnet_mp.checkpoint.files import load_checkpoint, save_checkpoint
from alexnet_mp.commands import convert
from alexnet_mp.common.cli import compose
from alexnet_mp.network.table import Network, parse_network
from tests.support.processes import run_script


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


@pytest.mark.parametrize(
    "overrides, says", [(["network=paper"], "holds small"), (["dropout=inverted"], "dropout=authors")]
)
def test_what_a_file_of_ours_says_is_not_contradicted(
    overrides: list[str], says: str, single: Path, trained: Trained, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=rf"ours\.safetensors .*{says} by its metadata; leave .* away"):
        converted(single, tmp_path / "back", *overrides)
    state, _ = load_checkpoint(converted(single, tmp_path / "back", "network=small", "dropout=authors"))
    assert_bit_equal(state, trained.state)


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
    with pytest.raises(ConfigurationError, match="nowhere is not a checkpoint: it does not exist"):
        converted(tmp_path / "nowhere", tmp_path / "single.safetensors")


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(ConfigurationError, match=r"photos is not a checkpoint.*checkpoint\.json"):
        converted(tmp_path / "photos", tmp_path / "single.safetensors")


@pytest.mark.parametrize("name", ["net", "net.pth", "net.caffemodel", "net.onxx"])
def test_a_kind_of_file_that_is_not_written_is_refused(name: str, trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name}: weights are written as \.safetensors.*\.onnx"):
        converted(trained.folder, tmp_path / name)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("override", ["network=small", "channels=bgr", "input_std=[58,57,57]"])
def test_what_is_for_files_from_elsewhere_is_refused_with_a_checkpoint(
    override: str, trained: Trained, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="is a checkpoint; network=, channels= and input_std= are for files"):
        converted(trained.folder, tmp_path / "single.safetensors", override)


@pytest.mark.parametrize("way", ["to_one_device", "to_towers"])
def test_convert_says_where_it_cannot_write(way: str, trained: Trained, single: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    source, out = (trained.folder, "out.safetensors") if way == "to_one_device" else (single, "out")
    with pytest.raises(ConfigurationError, match=f"cannot .*file/{out}"):
        converted(source, tmp_path / "file" / out)


def test_convert_runs_from_another_folder(trained: Trained, tmp_path: Path) -> None:
    arguments = [f"source={trained.folder}", "out=single.safetensors", "dropout=inverted"]
    finished = run_script("launch/convert.py", arguments, tmp_path)
    assert finished.code == 0, finished.stderr
    assert "single.safetensors" in finished.stdout
    assert metadata(tmp_path / "single.safetensors")["dropout"] == "inverted"
