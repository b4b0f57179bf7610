"""`classify` says the five most probable classes of photographs, as text and as a picture."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import alexnet_mp.analysis.evaluate.classification
import alexnet_mp.parallel.mesh
from alexnet_mp import ConfigurationError, build_model
from alexnet_mp.analysis.evaluate.classification import Classified, bars_of_text, classify
from alexnet_mp.analysis.evaluate.settings import ClassifySettings
from alexnet_mp.checkpoint.files import save_checkpoint
from alexnet_mp.commands import classify as command
from alexnet_mp.common.cli import compose
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.data.load import digits
from alexnet_mp.errors import LinkError
from alexnet_mp.parallel.links import LocalLink
from tests.parallel.test_link_test import TWO_DEVICES, corrupt
from tests.support.checkpoints import narrowed, random_weights
from tests.support.preparation import prepared
from tests.support.sources import png, write

NETWORK = narrowed("small")
DIVISOR = 20.0
ABOUT = {"data": {"source": "digits"}, "input": {"pixel_divisor": DIVISOR, "mean": "pixel"}}
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """A checkpoint of the narrow network, and pictures of a size that is not the network's."""

    checkpoint: Path
    pictures: list[Path]


@pytest.fixture
def scene(tmp_path: Path) -> Callable[..., Scene]:
    """Makes a checkpoint that says what is given, and PNGs of so many pixels a side."""

    def make(about: dict[str, Any], side: int = 16) -> Scene:
        save_checkpoint(tmp_path / "checkpoint", random_weights(NETWORK), NETWORK, about, 10)
        paths = [tmp_path / f"picture{number}.png" for number in range(3)]
        for number, path in enumerate(paths):
            Image.fromarray(drawn(number, side)).save(path)
        return Scene(tmp_path / "checkpoint", paths)

    return make


def drawn(number: int, side: int) -> Pixels:
    """Noise about a color of its own."""
    generator = np.random.default_rng(number)
    return (generator.integers(0, 156, 3) + generator.integers(0, 100, (side, side, 3))).astype(np.uint8)


def classified(scene: Scene, *overrides: str) -> list[Classified]:
    pictures = ",".join(map(str, scene.pictures))
    arguments = [f"checkpoint={scene.checkpoint}", f"pictures=[{pictures}]", "device=cpu", *overrides]
    return classify(from_mapping(ClassifySettings, compose("classify", arguments), ""))


@torch.no_grad()
def probabilities(images: Tensor) -> Tensor:
    """The softmax of the network by its formula, of images as it reads them, in float64."""
    model = build_model(NETWORK, dtype=torch.float64).eval()
    model.load_state_dict(random_weights(NETWORK))
    exponentials = model(images.double()).exp()
    return exponentials / exponentials.sum(dim=1, keepdim=True)


def assert_found(found: list[Classified], expected: Tensor, names: list[str]) -> None:
    order = expected.argsort(dim=1, descending=True)[:, :5]
    assert [list(each.names) for each in found] == [[names[c] for c in row] for row in order.tolist()]
    shown = torch.tensor([each.probabilities for each in found], dtype=torch.float64)
    assert torch.allclose(shown, expected.gather(1, order), atol=1e-5)
    assert (expected[0] - expected[1]).abs().max() > 0.01  # the pictures differ


def test_pictures_are_given_as_the_checkpoint_says_less_the_mean_image_of_its_data(scene: Callable[..., Scene]) -> None:
    mean = digits((3, 16, 16)).statistics.mean_image
    pixels = np.stack([drawn(number, 16) for number in range(3)])
    images = torch.from_numpy((pixels - mean) / DIVISOR).permute(0, 3, 1, 2)
    assert_found(classified(scene(ABOUT)), probabilities(images), [str(digit) for digit in range(10)])


def test_a_network_from_elsewhere_needs_no_data(scene: Callable[..., Scene], tmp_path: Path) -> None:
    names = [f"name {number}" for number in range(10)]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    given = scene({"converted_from": "elsewhere"}, side=20)
    options = [f"class_names={tmp_path / 'names.txt'}", "mean_color=[120,110,100]", "size=20"]
    found = classified(given, *options, "input.pixel_divisor=20", "input.mean=pixel")
    center = np.stack([drawn(number, 20)[2:18, 2:18] for number in range(3)])
    images = torch.from_numpy((center - np.array([120.0, 110, 100])) / DIVISOR).permute(0, 3, 1, 2)
    assert_found(found, probabilities(images), names)
    assert np.array_equal(found[1].pixels, drawn(1, 20))


def test_ten_views_are_averaged(scene: Callable[..., Scene]) -> None:
    given = scene({**ABOUT, "class_names": [f"c{number}" for number in range(10)]}, side=20)
    found = classified(given, "mean_color=[120,110,100]", "size=20", "views=10")
    pixels = np.stack([drawn(number, 20) for number in range(3)])
    images = torch.from_numpy((pixels - np.array([120.0, 110, 100])) / DIVISOR).permute(0, 3, 1, 2)
    places = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
    crops = [images[:, :, top : top + 16, left : left + 16] for top, left in places]
    mean = torch.stack([probabilities(view) for crop in crops for view in (crop, crop.flip(3))]).mean(dim=0)
    assert_found(found, mean, [f"c{number}" for number in range(10)])


def test_a_link_that_corrupts_is_found_before_anything_is_classified(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alexnet_mp.parallel.mesh, "LocalLink", corrupt(LocalLink, ("conv3", "forward"), host=True))
    monkeypatch.setattr(alexnet_mp.analysis.evaluate.classification, "choose_placement", lambda *_: TWO_DEVICES)
    with pytest.raises(LinkError, match=r"also through host memory.*conv3 forward"):
        classified(scene(ABOUT))


def test_the_text_has_a_bar_for_each_class_and_nothing_that_acts_on_a_terminal() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    names = ("cat\x1b[2J", "a name that is much too long for one line", "dog")
    lines = bars_of_text([Classified(Path("a/b.png"), pixels, names, (0.5, 0.1, 0.0))]).splitlines()
    assert lines[0] == "a/b.png"
    assert [line.count("█") for line in lines[1:]] == [15, 3, 0]  # of 30
    assert [re.findall(r"[\d.]+ %$", line) for line in lines[1:]] == [["50.0 %"], ["10.0 %"], ["0.0 %"]]
    assert lines[1].startswith("  cat\\x1b[2J ")
    assert len({len(line) for line in lines[1:]}) == 1


def test_the_command_prints_and_draws_and_never_overwrites(
    scene: Callable[..., Scene], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = scene(ABOUT), tmp_path / "bars.png"
    arguments = [f"checkpoint={given.checkpoint}", f"pictures={given.pictures[0]}", f"out={out}", "device=cpu"]
    command.run(compose("classify", arguments))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == str(given.pictures[0])
    assert len(printed) == 1 + 5 + 1
    with Image.open(out) as picture:
        assert picture.size[0] > 300
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 20
    with pytest.raises(ConfigurationError, match=r"bars\.png exists already"):
        command.run(compose("classify", arguments))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["pictures=missing.jpg"], r"cannot read missing\.jpg: No such file"),
        (["pictures=NOT_A_PICTURE"], "cannot decode .*notes.png: not an image of a known format"),
        (["pictures=[]"], "pictures is .*must name a file"),
        (["mean_color=[1,2]"], "mean_color needs 3 values"),
        (["mean_color=[1,2,300]"], "must be three numbers from 0 to 255"),
        (["mean_color=[1,2,3]", "size=8"], "reads 16x16 and its data have 8x8"),
        (["mean_color=[1,2,3]", "class_names=NOT_A_PICTURE"], "names for 1 classes; network small has 10"),
        (["data=pack"], "data.path"),
        (["picture=a.jpg"], "unknown key 'picture'; did you mean 'pictures'"),
        (["out=bars.jpg"], r"must end in \.png"),
    ],
)
def test_wrong_use_is_answered(overrides: list[str], message: str, scene: Callable[..., Scene], tmp_path: Path) -> None:
    given = scene(ABOUT)
    (tmp_path / "notes.png").write_text("notes")
    named = [override.replace("NOT_A_PICTURE", str(tmp_path / "notes.png")) for override in overrides]
    with pytest.raises(ConfigurationError, match=message):
        command.run(
            compose(
                "classify", [f"checkpoint={given.checkpoint}", f"pictures={given.pictures[0]}", "device=cpu", *named]
            )
        )


def test_a_checkpoint_that_does_not_say_its_scale_is_asked_for_it(scene: Callable[..., Scene]) -> None:
    with pytest.raises(ConfigurationError, match=r"checkpoint.*add input\.pixel_divisor=1 input\.mean=pixel"):
        classified(scene({"data": {"source": "digits"}}))


def test_classes_are_shown_in_words_if_the_data_know_them(scene: Callable[..., Scene], tmp_path: Path) -> None:
    classes = [f"n0000000{number}" for number in range(10)]
    content = {f"{split}/{key}/1.png": png(label) for label, key in enumerate(classes) for split in ("train", "val")}
    content["words.txt"] = "".join(f"{key}\tbird {key[-1]}, any bird\n" for key in classes).encode()
    prepared(write(tmp_path / "photos", content), tmp_path / "pack", size=16)
    data = {"source": "pack", "path": str(tmp_path / "pack")}
    (first, *_) = classified(scene({**ABOUT, "data": data, "class_names": classes}))
    assert all(re.fullmatch(r"bird \d", name) for name in first.names)
