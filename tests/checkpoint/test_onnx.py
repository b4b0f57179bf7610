"""ONNX: onnxruntime has the towers' logits, from the file alone."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet_mp import ConfigurationError, build_model, load_network
from alexnet_mp.checkpoint.convert.onnx import save_onnx, write_graph
from alexnet_mp.checkpoint.files import save_checkpoint
from alexnet_mp.commands import convert
from alexnet_mp.common.cli import compose
from alexnet_mp.network import rows
from alexnet_mp.network.table import Network, parse_network
from tests.support.checkpoints import narrow_network, narrowed, random_weights

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime, which runs what is exported, is not installed")
pytest.importorskip("onnx", reason="the extra onnx is not installed")

TWO_TOWERS = ("paper", "original_2012", "small", "cifar10_lrn", "cifar10_batchnorm", "bvlc_alexnet", "caffenet")
ONE_TOWER = ("one_column", "ungrouped", "one_weird_trick", "cifar10_resized")


def session(file: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def exported(folder: Path, network: Network, *overrides: str, about: dict[str, Any] | None = None) -> Path:
    """By the command, from a checkpoint."""
    save_checkpoint(folder / "checkpoint", random_weights(network), network, about or {}, timeout_seconds=10)
    out = folder / "model.onnx"
    convert.run(compose("convert", [f"source={folder / 'checkpoint'}", f"out={out}", *overrides]))
    return out


def assert_same_logits(file: Path, network: Network, images: int = 3) -> None:
    given = torch.randn(images, *network.image, generator=torch.Generator().manual_seed(5))
    model = build_model(network).eval()
    model.load_state_dict(random_weights(network))
    with torch.no_grad():
        expected = model(given).numpy()
    (found,) = session(file).run(["logits"], {"images": given.numpy()})
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())
    assert np.abs(expected).max() > 0.1
    assert images == 1 or np.abs(expected[0] - expected[1]).max() > 1e-3


@pytest.mark.parametrize("preset", [*TWO_TOWERS, *ONE_TOWER])
def test_onnxruntime_has_the_towers_logits(preset: str, tmp_path: Path) -> None:
    network = narrowed(preset)
    network = narrowed(preset, 67) if network.image[1] > 67 else network
    save_onnx(tmp_path / "model.onnx", random_weights(network), network, "authors")
    assert_same_logits(tmp_path / "model.onnx", network)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["paper", "original_2012", "small", "cifar10_lrn", "cifar10_batchnorm"])
def test_onnxruntime_has_the_towers_logits_at_full_size(preset: str, tmp_path: Path) -> None:
    network = load_network(preset)
    assert_same_logits(exported(tmp_path, network), network)


def every_other_row() -> Network:
    """What no preset of two towers has: tanh, padded poolings of both kinds, and a grouped product, in four towers."""
    conv = {"kind": "conv", "size": 3, "pad": [1, 1], "std": "he", "bias": 0}
    return parse_network(
        {
            "name": "every_other_row",
            "towers": 4,
            "image": [3, 12, 12],
            "classes": 5,
            "layers": {
                "conv1": {**conv, "kernels": 5, "reads": "image"},
                "tanh1": {"kind": "tanh"},
                "lrn1": {"kind": "lrn", "n": 3, "k": 1, "alpha": 0.5, "beta": 0.5, "alpha_scales": "sum"},
                "pool1": {"kind": "maxpool", "size": 3, "stride": 2, "pad": [0, 1]},
                "norm1": {"kind": "batch_norm", "epsilon": 0.01},
                "pool2": {"kind": "avgpool", "size": 3, "stride": 2, "pad": [1, 0]},
                "spatial2": {"kind": "spatial_norm", "size": 3, "k": 1, "alpha": 0.5, "beta": 0.75},
                "fc3": {"kind": "fc", "units": 6, "reads": "own", "std": "he", "bias": 0},
                "norm3": {"kind": "batch_norm"},
                "fc4": {"kind": "fc", "units": 6, "reads": "both", "std": "he", "bias": 0},
                "dropout4": {"kind": "dropout", "p": 0.3},
                "fc5": {"kind": "classifier", "std": "he", "bias": 0},
            },
        }
    )


@pytest.mark.parametrize("dropout", ["authors", "inverted"])
def test_every_other_row_in_four_towers_and_either_convention(dropout: str, tmp_path: Path) -> None:
    network = every_other_row()
    assert_same_logits(exported(tmp_path, network, f"dropout={dropout}"), network)


def test_the_conventions_differ_in_the_graph_and_not_in_the_logits(tmp_path: Path) -> None:
    network = narrow_network()
    file = exported(tmp_path, network, "dropout=inverted")
    assert_same_logits(file, network)
    import onnx

    assert "Mul" not in {node.op_type for node in onnx.load(file).graph.node}


def test_one_image_and_many_at_a_time(tmp_path: Path) -> None:
    network = narrow_network()
    file = exported(tmp_path, network)
    for images in (1, 7):
        assert_same_logits(file, network, images)


def test_the_model_says_what_it_is(tmp_path: Path) -> None:
    names, scale = ["zero", "one"], {"pixel_divisor": 64.0, "mean": "pixel"}
    network = narrow_network()
    opened = session(exported(tmp_path, network, about={"class_names": names, "input": scale}))
    said = opened.get_modelmeta().custom_metadata_map
    assert said["name"] == network.name
    assert parse_network(json.loads(said["network"])) == network
    assert (json.loads(said["class_names"]), json.loads(said["input"])) == (names, scale)
    assert said["dropout"] == "authors"
    (images,), (logits,) = opened.get_inputs(), opened.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(float)", ["N", 3, 16, 16])
    assert (logits.name, logits.shape) == ("logits", ["N", 10])


@dataclass(frozen=True)
class Strange(rows.Row):
    """A kind of row that came later."""

    kind = "strange"


def test_a_row_that_has_no_translation_is_named() -> None:
    network = narrow_network()
    network = replace(network, rows={"odd": Strange(), **network.rows})
    with pytest.raises(ConfigurationError, match="odd is of kind strange, which is not translated to ONNX"):
        write_graph(network, "authors", {})


def test_without_the_package_its_name_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigurationError, match=r"pip install onnx"):
        exported(tmp_path, narrow_network())
    assert not list(tmp_path.glob("*.onnx"))


def test_the_kind_of_file_is_known_by_its_suffix_in_capitals_too(tmp_path: Path) -> None:
    source, network = tmp_path / "checkpoint", narrow_network()
    save_checkpoint(source, random_weights(network), network, {}, timeout_seconds=10)
    convert.run(compose("convert", [f"source={source}", f"out={tmp_path / 'NET.ONNX'}"]))
    assert_same_logits(tmp_path / "NET.ONNX", network)
    with pytest.raises(ConfigurationError, match=r"weights are written as \.safetensors"):
        convert.run(compose("convert", [f"source={source}", f"out={tmp_path / 'NET.PTH'}"]))
