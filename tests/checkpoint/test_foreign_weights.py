"""Weights that others trained come into the towers: code that knows nothing of the library gives the same logits."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet_mp import ConfigurationError, build_model, load_checkpoint, to_single_device
from alexnet_mp.checkpoint.convert.foreign import ForeignInput, as_read_by_us, renamed
from alexnet_mp.commands import convert
from alexnet_mp.common.cli import compose
from alexnet_mp.network.rows import BatchNorm
from alexnet_mp.network.table import Network
from tests.support import independent
from tests.support.checkpoints import narrowed, random_weights

IMAGE = 67  # 15 windows of conv1 with the 3 pixels over the edge, and 1 position of pool5


class Lrn(nn.Module):
    """The paper's LRN in two groups; PyTorch divides alpha by the 5 maps of a window."""

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([F.local_response_norm(half, 5, 5e-4, 0.75, 2.0) for half in maps.chunk(2, dim=1)], dim=1)


class Foreign(nn.Module):
    """The paper's network as a PyTorch user would write it: torchvision's names, groups, and PyTorch's dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Sequential(nn.ZeroPad2d((0, 3, 0, 3)), nn.Conv2d(3, 6, 11, 4)), nn.ReLU(), Lrn(), nn.MaxPool2d(3, 2),
            nn.Conv2d(6, 12, 5, padding=2, groups=2), nn.ReLU(), Lrn(), nn.MaxPool2d(3, 2),
            nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(),
            nn.Conv2d(24, 24, 3, padding=1, groups=2), nn.ReLU(),
            nn.Conv2d(24, 24, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Linear(24, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).flatten(1))


def table() -> Network:
    """The paper's table with the counts of `Foreign`; conv3 to conv5 have equal shapes, so that order matters."""
    paper, counts = narrowed("paper", IMAGE), {"conv1": 3, "conv2": 6, "conv3": 12, "conv4": 12, "conv5": 12}
    rows = {name: replace(row, kernels=counts[name]) if name in counts else row for name, row in paper.rows.items()}
    return replace(paper, rows=rows)


@pytest.fixture
def foreign() -> Foreign:
    """Its weights large enough for every layer to matter."""
    generator = torch.Generator().manual_seed(7)
    model = Foreign().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 30
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (2 / fan_in) ** 0.5)
    model.classifier[0].weight.data.mul_(3)
    return model


def images(channels: int = 3) -> Tensor:
    return torch.randn(3, channels, IMAGE, IMAGE, generator=torch.Generator().manual_seed(8))


def imported(file: Path, network: Network, *overrides: str) -> Callable[[Tensor], Tensor]:
    """The towers with the weights of a file, by the command, to evaluate."""
    out = file.parent / "imported"
    convert.run({**compose("convert", [f"source={file}", f"out={out}", *overrides]), "network": network.to_mapping()})
    state, _ = load_checkpoint(out)
    model = build_model(network).eval()
    model.load_state_dict(state)
    return torch.no_grad()(model)


def assert_close(found: Tensor, expected: Tensor) -> None:
    """To 1e-5 of the largest logit, and the images differ."""
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (expected[0] - expected[1]).abs().max() > 0.1


def as_safetensors(model: nn.Module, folder: Path) -> Path:
    save_file(dict(model.state_dict()), folder / "foreign.safetensors")
    return folder / "foreign.safetensors"


def as_torch(model: nn.Module, folder: Path) -> Path:
    torch.save(model.state_dict(), folder / "foreign.pt")
    return folder / "foreign.pt"


def as_a_training_script_does(model: nn.Module, folder: Path) -> Path:
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"epoch": 90, "arch": "alexnet", "state_dict": state, "best_prec1": 57.5}, folder / "model_best.pth.tar")
    return folder / "model_best.pth.tar"


@pytest.mark.parametrize("save", [as_safetensors, as_torch, as_a_training_script_does])
@torch.no_grad()
def test_a_grouped_network_of_others_has_the_same_logits_in_two_towers(
    save: Callable[[nn.Module, Path], Path], foreign: Foreign, tmp_path: Path
) -> None:
    model = imported(save(foreign, tmp_path), table(), "dropout=inverted")
    assert_close(model(images()), foreign(images()))


def test_the_command_says_which_layer_became_which(
    foreign: Foreign, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported(as_safetensors(foreign, tmp_path), table(), "dropout=inverted")
    said = dict(re.findall(r"^(\S+) is (\S+)$", capsys.readouterr().out, flags=re.MULTILINE))
    convolutions = {"features.0.1": "conv1", "features.4": "conv2", "features.8": "conv3"}
    # By number and not by letter: features.10 comes after features.8.
    convolutions |= {"features.10": "conv4", "features.12": "conv5"}
    assert said == {**convolutions, "classifier.0": "fc6", "classifier.3": "fc7", "classifier.6": "fc8"}


@torch.no_grad()
def test_a_network_that_read_blue_first_and_divided_by_its_standard_deviations(
    foreign: Foreign, tmp_path: Path
) -> None:
    std = [58.395, 57.12, 57.375]  # red, green, blue
    pixels = 60 * images()  # less the mean
    theirs = (pixels / torch.tensor(std).view(3, 1, 1))[:, [2, 1, 0]]
    file = as_torch(foreign, tmp_path)
    model = imported(file, table(), "dropout=inverted", "channels=bgr", f"input_std={std}")
    assert_close(model(pixels), foreign(theirs))


@torch.no_grad()
def test_half_precision_weights_become_float32(foreign: Foreign, tmp_path: Path) -> None:
    foreign.half()
    model = imported(as_safetensors(foreign, tmp_path), table(), "dropout=inverted")
    assert_close(model(images()), foreign.float()(images()))


def test_caffes_layout_by_its_names(tmp_path: Path) -> None:
    network = narrowed("paper", IMAGE)
    single = to_single_device(random_weights(network))
    save_file(single, tmp_path / "caffe.safetensors")
    model = imported(tmp_path / "caffe.safetensors", network)
    assert_close(model(images()), independent.paper(images(), single))


@pytest.mark.parametrize(("preset", "pool_first"), [("bvlc_alexnet", False), ("caffenet", True)])
def test_caffes_two_alexnets_by_their_prototxt(preset: str, pool_first: bool, tmp_path: Path) -> None:
    network = narrowed(preset, IMAGE)
    w = to_single_device(random_weights(network))
    save_file(w, tmp_path / "caffe.safetensors")
    model = imported(tmp_path / "caffe.safetensors", network, "dropout=inverted", "channels=bgr")

    def norm(x: Tensor) -> Tensor:
        return torch.cat([independent.lrn(half, 1e-4 / 5, k=1.0) for half in x.chunk(2, dim=1)], dim=1)

    def pool(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    def conv(x: Tensor, n: int, pad: int, groups: int) -> Tensor:
        return F.conv2d(x, w[f"conv{n}.weight"], w[f"conv{n}.bias"], 4 if n == 1 else 1, pad, 1, groups).relu()

    x = images()[:, [2, 1, 0]]
    for n, (pad, groups) in enumerate([(0, 1), (2, 2)], start=1):
        x = conv(x, n, pad, groups)
        x = norm(pool(x)) if pool_first else pool(norm(x))
    x = pool(conv(conv(conv(x, 3, 1, 1), 4, 1, 2), 5, 1, 2)).flatten(1)
    for layer in ("fc6", "fc7"):
        x = F.linear(x, w[f"{layer}.weight"], w[f"{layer}.bias"]).relu()
    assert_close(model(images()), F.linear(x, w["fc8.weight"], w["fc8.bias"]))


def test_layers_that_fit_no_row_are_listed_with_the_rows_that_are_left(foreign: Foreign) -> None:
    weights = dict(foreign.state_dict())
    weights["features.10.weight"] = torch.zeros(24, 24, 3, 3)  # not in groups
    with pytest.raises(ConfigurationError) as refused:
        renamed(weights, table())
    in_file, in_table = str(refused.value).split("In the table")
    assert "features.10 (bias [24], weight [24, 24, 3, 3])" in in_file
    assert "conv4 (bias [24], weight [24, 12, 3, 3])" in in_table
    assert "conv1" not in in_table


def test_equal_shapes_under_names_without_numbers_are_refused_with_both_sides(foreign: Foreign) -> None:
    state = foreign.state_dict()
    renaming = {"features.8": "third", "features.10": "fourth", "features.12": "fifth"}
    weights = {re.sub(r"features\.(8|10|12)(?=\.)", lambda m: renaming[m[0]], name): t for name, t in state.items()}
    with pytest.raises(
        ConfigurationError, match=r"third, fourth, fifth of the file have equal shapes.* conv3, conv4, c"
    ):
        renamed(weights, table())


def test_batch_normalization_of_others_is_matched_without_its_count() -> None:
    network = narrowed("cifar10_batchnorm")
    single = to_single_device(random_weights(network))
    theirs = {f"net.{name.replace('norm', 'bn')}": tensor for name, tensor in single.items()}
    theirs |= {"net.bn1.num_batches_tracked": torch.tensor(3)}
    assert renamed(theirs, network) == {name: f"net.{name.replace('norm', 'bn')}" for name in single}


class Exploit:
    """Unpickled, it would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda folder: Exploit(folder / "exploited"), "not a file of torch.save that holds tensors alone"),
        (lambda folder: {"conv1.weight": Exploit(folder / "exploited")}, "holds tensors alone"),
        (lambda folder: Foreign(), "save model.state_dict\\(\\), not the model"),
        (lambda folder: [torch.zeros(1)], "holds no state dict"),
        (lambda folder: {"epoch": 3, "a": torch.zeros(1)}, "'epoch' is int; a state dict has tensors by name"),
        (lambda folder: {"a.weight": torch.zeros(2, 2).to_sparse()}, "a.weight is not a tensor of plain numbers"),
    ],
)
def test_a_file_of_torch_save_is_data_and_never_code(
    content: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    torch.save(content(tmp_path), tmp_path / "x.pt")
    with pytest.raises(ConfigurationError, match=message) as refused:
        imported(tmp_path / "x.pt", table())
    assert "x.pt" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "exploited").exists()
    assert not (tmp_path / "imported").exists()


def test_a_tensor_that_claims_to_be_huge_is_refused_by_its_shape(foreign: Foreign, tmp_path: Path) -> None:
    weights = dict(foreign.state_dict())
    weights["classifier.6.weight"] = torch.zeros(1).expand(1 << 30, 1 << 10)  # 4 TiB, from 4 bytes
    torch.save(weights, tmp_path / "x.pt")
    with pytest.raises(ConfigurationError, match=r"classifier\.6 \(bias \[10\], weight \[1073741824, 1024\]\)"):
        imported(tmp_path / "x.pt", table())


def test_nothing_is_folded_into_a_layer_that_does_not_read_the_image_itself() -> None:
    network = replace(table(), rows={"bn0": BatchNorm(), **table().rows})
    with pytest.raises(ConfigurationError, match="bn0 stands between the image and conv1"):
        as_read_by_us({}, network, ForeignInput("bgr", None))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["input_std=[1,2]"], r"input_std=\[1.0, 2.0\] must be 3 positive numbers"),
        (["input_std=[1,2,0]"], "must be 3 positive numbers"),
        (["channels=gbr"], "channels is 'gbr', not one of rgb, bgr"),
        ([], "does not say which network it holds"),
    ],
)
def test_wrong_options_are_refused(overrides: list[str], message: str, foreign: Foreign, tmp_path: Path) -> None:
    file = as_torch(foreign, tmp_path)
    composed = dict(compose("convert", [f"source={file}", f"out={tmp_path / 'out'}", *overrides]))
    if overrides:
        composed["network"] = table().to_mapping()
    with pytest.raises(ConfigurationError, match=message):
        convert.run(composed)
    assert not (tmp_path / "out").exists()
