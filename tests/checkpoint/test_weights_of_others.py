"""Weights of others come in containers, shapes and places of every custom; what is no weights is called what it is."""

import gzip
import math
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet_mp import ConfigurationError, build_model, load_checkpoint, load_network, to_single_device
from alexnet_mp.checkpoint.convert.foreign import ForeignInput, as_shown, check_scale, squeezed
from alexnet_mp.checkpoint.convert.layout import single_device_shapes
from alexnet_mp.checkpoint.convert.weight_files import read_weights
from alexnet_mp.commands import convert
from alexnet_mp.common.cli import compose
from tests.support.checkpoints import narrow_network, narrowed, random_weights

STATE = {"conv1.weight": torch.ones(2, 3), "conv1.bias": torch.zeros(2)}
CONTAINERS: dict[str, Any] = {
    "none": STATE,
    "state_dict": {"epoch": 90, "state_dict": STATE},
    "model_state_dict": {"model_state_dict": STATE, "optimizer_state_dict": {"state": {0: torch.ones(3)}}},
    "model_state": {"model_state": STATE, "optimizer_state": {}},
    "model": {"model": STATE, "optimizer": {"state": {}}},
    "net": {"net": STATE, "acc": 57.5, "epoch": 3},
    "network": {"network": STATE},
    "weights": {"weights": STATE, "meta": {"source": "x"}},
    "params": {"params": STATE},
    "module": {"module": STATE},
    "model in state_dict": {"state_dict": {"model": STATE}},
    "state_dict in model": {"model": {"state_dict": STATE, "arch": "alexnet"}},
    "four deep": {"net": {"model": {"weights": {"model_state_dict": STATE}}}},
    "a name that is no container": {"model": "alexnet", "state_dict": STATE},
    "a tensor beside": {"mean": torch.ones(3), "net": STATE},
}


@pytest.mark.parametrize("content", CONTAINERS.values(), ids=CONTAINERS)
def test_a_state_dict_is_found_in_its_container(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    found, _ = read_weights(tmp_path / "x.pt")
    assert list(found) == list(STATE)
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_containers_without_end_are_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ConfigurationError, match="'model' is dict; a state dict has tensors by name"):
        read_weights(tmp_path / "x.pt")


class Model(nn.Module):
    """A class of somebody's own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Linear(3, 2)


def whole_model(path: Path) -> None:
    torch.save(Model(), path)


def model_of_torch(path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(3, 2)), path)


def model_in_a_container(path: Path) -> None:
    torch.save({"epoch": 3, "model": Model()}, path)


def numbers_of_numpy(path: Path) -> None:
    torch.save({"state_dict": STATE, "best_accuracy": np.float64(57.5)}, path)


def program(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:  # as torch.jit.save does
        for name in ("constants.pkl", "data.pkl", "version", "code/__torch__.py"):
            file.writestr(f"model/{name}", b"\x80\x02}q\x00." if name.endswith("pkl") else b"3\n")


def cut_off(path: Path) -> None:
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:-200])


def page(path: Path) -> None:
    path.write_text("\n<!DOCTYPE html>\n<html><body>Sign in to download</body></html>", "utf-8")


def page_with_a_mark(path: Path) -> None:
    path.write_text("\ufeff<html lang='ko'><title>구글 드라이브</title>", "utf-8")


def xml(path: Path) -> None:
    path.write_text("<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "utf-8")


def pointer(path: Path) -> None:
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 244408911\n", "utf-8")


def empty(path: Path) -> None:
    path.touch()


def of_keras(path: Path) -> None:
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))


def compressed(path: Path) -> None:
    path.write_bytes(gzip.compress(b"weights"))


def folder(path: Path) -> None:
    path.mkdir()


NO_WEIGHTS: dict[Callable[[Path], None], str] = {
    whole_model: r"holds tests\S*\.Model, which runs code.*where it was made, save model\.state_dict\(\)",
    model_of_torch: r"holds torch\.nn\S*Sequential, which runs code",
    model_in_a_container: r"holds tests\S*\.Model, which runs code",
    numbers_of_numpy: r"holds numpy\S*, which runs code",
    program: r"holds a program of TorchScript, which runs code|cut off or damaged",
    cut_off: r"cut off or damaged\); get it again",
    page: "a page of the web in place of the file",
    page_with_a_mark: "a page of the web in place of the file",
    xml: "a page of the web in place of the file",
    pointer: "a pointer of Git LFS in place of the file; `git lfs pull`",
    empty: "it is empty",
    of_keras: "it is HDF5",
    compressed: "it is compressed; unpack it with gunzip",
    folder: "Is a directory",
}


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors", "x.caffemodel"])
@pytest.mark.parametrize("write", NO_WEIGHTS, ids=lambda write: write.__name__)
def test_what_is_no_weights_is_called_what_it_is(write: Callable[[Path], None], name: str, tmp_path: Path) -> None:
    of_torch = write in (whole_model, model_of_torch, model_in_a_container, numbers_of_numpy, program, cut_off)
    write(tmp_path / name)
    with pytest.raises(ConfigurationError) as refused:
        read_weights(tmp_path / name)
    said = str(refused.value)
    assert name in said
    assert "\n" not in said
    assert not re.search("trust|weights_only|allowlist|add_safe_globals", said, re.IGNORECASE)
    if name == "x.pth" or not of_torch:
        assert re.search(NO_WEIGHTS[write], said), said


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_numbers_that_are_none_are_refused(number: float, dtype: torch.dtype, tmp_path: Path) -> None:
    network = narrow_network()
    single = {name: tensor.to(dtype) for name, tensor in to_single_device(random_weights(network)).items()}
    single["conv3.weight"].view(-1)[[1, 5]] = number
    save_file(single, tmp_path / "x.safetensors")
    configuration = compose("convert", [f"source={tmp_path}/x.safetensors", f"out={tmp_path}/out"])
    with pytest.raises(
        ConfigurationError, match=r"x\.safetensors: 2 of the \d+ numbers of conv3\.weight are NaN or inf"
    ):
        convert.run({**configuration, "network": network.to_mapping()})
    assert not (tmp_path / "out").exists()


SHAPES = {  # of Caffe's and its converters', and the table's
    "a bias of four sides": ("conv1.bias", (1, 1, 1, 6), (6,)),
    "a bias of two sides": ("conv1.bias", (1, 6), (6,)),
    "a bias as maps": ("conv1.bias", (1, 6, 1, 1), (6,)),
    "a bias at the end": ("conv1.bias", (6, 1, 1, 1), (6,)),
    "weights of units": ("fc7.weight", (1, 1, 64, 64), (64, 64)),
    "weights of maps": ("conv1.weight", (6, 3, 11, 11), (6, 3, 11, 11)),
    "another shape": ("fc7.weight", (1, 1, 63, 64), (1, 1, 63, 64)),
    "nothing": ("fc7.weight", (), ()),
}


@pytest.mark.parametrize("name, shape, expected", SHAPES.values(), ids=SHAPES)
def test_sides_of_one_that_the_table_has_not_are_dropped(
    name: str, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    found = squeezed({name: torch.zeros(shape)}, narrowed("paper", 67))
    assert tuple(found[name].shape) == expected


def torchvisions(classes: int) -> dict[str, Tensor]:
    """The state dict of torchvision.models.alexnet, without its package; every tensor is one number many times."""
    convolutions = {
        0: (64, 3, 11, 11),
        3: (192, 64, 5, 5),
        6: (384, 192, 3, 3),
        8: (256, 384, 3, 3),
        10: (256, 256, 3, 3),
    }
    layers = {f"features.{n}": shape for n, shape in convolutions.items()}
    layers |= {"classifier.1": (4096, 9216), "classifier.4": (4096, 4096), "classifier.6": (classes, 4096)}
    found = {}
    for name, shape in layers.items():
        found[f"{name}.weight"] = torch.zeros(1).expand(shape)
        found[f"{name}.bias"] = torch.zeros(1).expand(shape[:1])
    return found


RENAMINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "data parallel": lambda name: f"module.{name}",
    "features in parallel": lambda name: name.replace("features.", "features.module."),
}


@pytest.mark.parametrize("classes", [1000, 10])
@pytest.mark.parametrize("renaming", RENAMINGS.values(), ids=RENAMINGS)
def test_torchvisions_alexnet_is_recognized_with_the_scale_of_its_input(
    renaming: Callable[[str], str], classes: int
) -> None:
    weights = {renaming(name): tensor for name, tensor in torchvisions(classes).items()}
    network, dropout, given, said = as_shown(weights, False, None, None, ForeignInput())
    assert network is not None
    assert (network.name, network.classes, dropout) == ("one_weird_trick", classes, "inverted")
    assert given.std == pytest.approx([255 * each for each in (0.229, 0.224, 0.225)])
    assert 'network=one_weird_trick dropout=inverted channels=rgb "input_std=[58.395,57.12,57.375]"' in said


def test_what_is_told_of_torchvisions_alexnet_counts() -> None:
    told = load_network("one_weird_trick")
    network, dropout, given, _ = as_shown(
        torchvisions(1000), False, told, "authors", ForeignInput("bgr", (1.0, 1.0, 1.0))
    )
    assert (network, dropout, given) == (told, "authors", ForeignInput("bgr", (1.0, 1.0, 1.0)))


@pytest.mark.parametrize("change", ["a name", "a shape", "one more", "one less"])
def test_what_only_looks_like_it_is_not_taken_for_it(change: str) -> None:
    weights = torchvisions(1000)
    last = weights.pop("features.10.bias")
    if change != "one less":
        name = "features.11.bias" if change == "a name" else "features.10.bias"
        weights[name] = torch.zeros(255) if change == "a shape" else last
    if change == "one more":
        weights["features.12.bias"] = last
    assert as_shown(weights, False, None, None, ForeignInput()) == (None, None, ForeignInput(), "")


@pytest.mark.slow
@torch.no_grad()
def test_torchvisions_alexnet_gives_its_logits_in_one_tower(tmp_path: Path) -> None:
    """Its whole size, for that is how it is known; two images, divided as its transforms divide them."""
    shapes, generator = torchvisions(10), torch.Generator().manual_seed(5)
    w = {n: torch.randn(t.shape, generator=generator) * (2 / max(30, t[0].numel())) ** 0.5 for n, t in shapes.items()}
    torch.save(w, tmp_path / "alexnet.pth")
    convert.run(compose("convert", [f"source={tmp_path}/alexnet.pth", f"out={tmp_path}/out"]))
    state, description = load_checkpoint(tmp_path / "out")
    assert description["input"] == {"pixel_divisor": 1.0, "mean": "pixel"}
    model = build_model(replace(load_network("one_weird_trick"), classes=10)).eval()
    model.load_state_dict(state)
    pixels = 60 * torch.randn(2, 3, 224, 224, generator=generator)  # less the mean
    x = pixels / torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    for n, (stride, pad) in {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}.items():
        x = F.conv2d(x, w[f"features.{n}.weight"], w[f"features.{n}.bias"], stride, pad).relu()
        x = F.max_pool2d(x, 3, 2) if n in (0, 3, 10) else x
    x = x.flatten(1)
    for n in (1, 4):
        x = F.linear(x, w[f"classifier.{n}.weight"], w[f"classifier.{n}.bias"]).relu()
    expected = F.linear(x, w["classifier.6.weight"], w["classifier.6.bias"])
    assert (model(pixels) - expected).abs().max() <= 1e-5 * expected.abs().max()


SCALES = {
    "torchvision's mean": ([0.485, 0.456, 0.406], "[123.675,116.28,103.53]"),
    "halves": ([0.5, 0.5, 0.5], "[127.5,127.5,127.5]"),
    "torchvision's deviations": ([0.229, 0.224, 0.225], "[58.395,57.12,57.375]"),
    "one channel": ([0.1307], "[33.3285]"),
    "one of three": ([0.0, 0.0, 0.5], "[0,0,127.5]"),
    "black": ([0.0, 0.0, 0.0], ""),
    "no division": ([1.0, 1.0, 1.0], ""),
    "pixels": ([124.0, 117.0, 104.0], ""),
    "dark": ([0.9, 2.0, 1.0], ""),
    "nothing": (None, ""),
}


@pytest.mark.parametrize("values, meant", SCALES.values(), ids=SCALES)
def test_colors_between_0_and_1_are_questioned(values: list[float] | None, meant: str) -> None:
    if not meant:
        check_scale("mean_color", values)
        return
    with pytest.raises(ConfigurationError) as refused:
        check_scale("mean_color", values)
    assert f'"mean_color={meant}"' in str(refused.value)


@pytest.mark.parametrize(
    ("command", "overrides"),
    [
        ("classify", ["checkpoint=x", "pictures=a.jpg", "mean_color=[0.485,0.456,0.406]"]),
        ("convert", ["input_std=[0.229,0.224,0.225]"]),
    ],
)
def test_the_commands_question_them(command: str, overrides: list[str], tmp_path: Path) -> None:
    from alexnet_mp.commands import classify

    network = narrow_network()
    save_file(to_single_device(random_weights(network)), tmp_path / "x.safetensors")
    files = [f"source={tmp_path}/x.safetensors", f"out={tmp_path}/out"] if command == "convert" else []
    configuration = {**compose(command, [*files, *overrides])}
    if command == "convert":
        configuration["network"] = network.to_mapping()
    with pytest.raises(ConfigurationError, match="is for pixels from 0 to 1, it seems"):
        {"convert": convert, "classify": classify}[command].run(configuration)


def test_the_table_knows_what_torchvision_has() -> None:
    shapes = list(single_device_shapes(load_network("one_weird_trick")).values())
    assert shapes == [tuple(tensor.shape) for tensor in torchvisions(1000).values()]
