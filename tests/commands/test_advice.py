"""What an error message advises works when it is typed: each piece of advice is followed, word for word."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from alexnet_mp.analysis.evaluate.evaluate import evaluate_checkpoints
from alexnet_mp.analysis.evaluate.settings import EvaluateSettings
from alexnet_mp.analysis.figures.settings import PlotSettings
from alexnet_mp.checkpoint.convert.layout import to_single_device
from alexnet_mp.checkpoint.files import save_checkpoint
from alexnet_mp.commands import classify, convert, describe, plan, prepare, results
from alexnet_mp.common.cli import compose
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.build import build_model
from alexnet_mp.sweep.settings import parse_sweep_settings
from alexnet_mp.training.train import prepare_run
from tests.support.evaluations import CLASSES, DIVISOR, make_pack
from tests.support.runs import make_run
from tests.training.test_validation import small

COMMANDS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "train": lambda configuration: prepare_run(configuration, classes_of_data="network.classes" not in GIVEN),
    "sweep": parse_sweep_settings,
    "evaluate": lambda configuration: evaluate_checkpoints(from_mapping(EvaluateSettings, configuration, "")),
    "plot": lambda configuration: from_mapping(PlotSettings, configuration, ""),
    **{each.__name__.rpartition(".")[2]: each.run for each in (classify, convert, describe, plan, prepare, results)},
}
GIVEN: set[str] = set()  # the keys of the command that runs


@dataclass(frozen=True)
class Advice:
    """A command that is refused, the words of its message, and what is typed then: without some keys, with others."""

    command: str
    given: list[str]
    says: str
    then: list[str]
    without: tuple[str, ...] = ()


CHECKPOINT, MUTE = "checkpoint=SCENE/checkpoint", "checkpoint=SCENE/mute"
PICTURE, SCALE = "pictures=SCENE/a.png", ["input.pixel_divisor=1", "input.mean=pixel"]
PREPARE = ["size=8", "workers=1", "out=new"]
ADVICE = {
    "classes": Advice("train", ["network.classes=3"], "use network.classes=10", ["network.classes=10"]),
    "tf32": Advice("train", ["precision=tf32"], "use precision=float32", ["precision=float32"]),
    "cuda": Advice("train", ["device=cuda"], "use device=cpu", ["device=cpu"]),
    "two devices": Advice("train", ["placement=two_devices"], "use placement=simulated", ["placement=simulated"]),
    "one tower": Advice(
        "train", ["placement=two_devices", "towers=1"], "use placement=simulated", ["placement=simulated"]
    ),
    "towers": Advice("train", ["towers=3"], "[1, 2, 4, 8, 16]", ["towers=16"]),
    "gray": Advice(
        "train",
        ["network.image=[1,28,28]", "recipe.augmentation.color={std: 0.1, eigenvalues: root}"],
        "recipe.augmentation.color=null trains without it",
        ["recipe.augmentation.color=null"],
    ),
    "a path for digits": Advice(
        "train", ["data.path=SCENE/pack"], "use data=pack", ["data=pack", "recipe.batch_size=7"]
    ),
    "a pack as a folder": Advice(
        "train", ["data=folder", "data.path=SCENE/pack", "recipe.batch_size=7"], "use data=pack", ["data=pack"]
    ),
    "no path": Advice(
        "train",
        ["data=pack", "data.path=null", "recipe.batch_size=7"],
        "needs data.path, the folder that launch/prepare.py wrote",
        ["data.path=SCENE/pack"],
    ),
    "an unknown preset": Advice("train", ["network=papr"], "for example: network=", ["network=small"]),
    "a key misspelt": Advice("train", ["+sead=1"], "did you mean 'seed'", ["seed=1"], without=("+sead",)),
    "a shared batch": Advice("train", ["recipe.batch_size=2000"], "1437 training images", ["recipe.batch_size=1437"]),
    "cut auxiliaries": Advice("describe", ["network=googlenet", "towers=2"], "take towers=1", ["towers=1"]),
    "networks alone": Advice(
        "describe", ["networks=[small]", "charts=false"], "and out=FOLDER go together", ["out=new"]
    ),
    "one of several": Advice(
        "describe",
        ["networks=[small]", "out=new", "towers=1"],
        "give network=NAME in place of networks",
        ["network=small"],
        without=("networks", "out"),
    ),
    "replicas to nodes": Advice("plan", ["replicas=3", "nodes=2", "node_bandwidth=1e9"], "replicas=2", ["replicas=2"]),
    "too many replicas": Advice(
        "plan", ["replicas=4", "nodes=2", "node_bandwidth=1e9"], "use at most replicas=2", ["replicas=2"]
    ),
    "too few nodes": Advice("plan", ["replicas=4", "nodes=2", "node_bandwidth=1e9"], "or nodes=4", ["nodes=4"]),
    "a link between nodes": Advice(
        "plan", ["replicas=2", "nodes=2"], "node_bandwidth=BYTES_A_SECOND", ["node_bandwidth=1e9"]
    ),
    "another network": Advice("plan", ["against=SCENE/report.json"], "add network=small", ["network=small"]),
    "two comparisons": Advice(
        "plan", ["check=true", "against=SCENE/report.json"], "give one", ["check=true"], without=("against",)
    ),
    "no variants": Advice("sweep", ["out=new"], "sweep=lrn", ["sweep=lrn"]),
    "no variants, on the command line": Advice(
        "sweep",
        ["out=new"],
        "\"variants={lrn: [], no_lrn: ['network.layers.lrn1=null']}\"",
        ["variants={lrn: [], no_lrn: ['network.layers.lrn1=null']}"],
    ),
    "a seed of a sweep": Advice(
        "sweep",
        ["out=new", "sweep=lrn", "overrides=['seed=1']"],
        "use seeds=[0,1,2]",
        ["overrides=[]", "seeds=[0,1,2]"],
    ),
    "no network": Advice(
        "convert", ["source=SCENE/foreign.safetensors", "out=new"], "add network=NAME", ["network=small"]
    ),
    "a dropout of its own": Advice(
        "convert",
        ["source=SCENE/ours.safetensors", "out=new", "dropout=inverted"],
        "leave dropout= away",
        [],
        without=("dropout",),
    ),
    "a network of its own": Advice(
        "convert",
        ["source=SCENE/ours.safetensors", "out=new", "network=paper"],
        "leave network= away",
        [],
        without=("network",),
    ),
    "a file of ours": Advice(
        "convert",
        ["source=SCENE/ours.safetensors", "out=new", "channels=bgr"],
        "needs no channels=",
        [],
        without=("channels",),
    ),
    "no format": Advice(
        "convert", ["source=SCENE/checkpoint", "out=new.txt"], "written as .safetensors", ["out=new.safetensors"]
    ),
    "no data": Advice("classify", [MUTE, PICTURE, *SCALE], "or data=digits", ["data=digits"]),
    "no data, a pack": Advice(
        "classify",
        ["checkpoint=SCENE/mute seven", PICTURE, *SCALE],
        "add data=pack data.path=FOLDER",
        ["data=pack", "data.path=SCENE/pack"],
    ),
    "no scale": Advice("classify", [MUTE, PICTURE, "data=digits"], "add input.pixel_divisor=1 input.mean=pixel", SCALE),
    "too small": Advice("classify", [CHECKPOINT, PICTURE, "mean_color=[1,2,3]", "size=8"], "choose size=", ["size=16"]),
    "no picture's name": Advice("classify", [CHECKPOINT, PICTURE, "out=new.jpg"], "must end in .png", ["out=new.png"]),
    "moved data": Advice(
        "evaluate", ["checkpoint=SCENE/moved"], "data.path=FOLDER names another", ["data.path=SCENE/pack"]
    ),
    "other data": Advice(
        "evaluate",
        ["checkpoint=SCENE/other"],
        "data.path=SCENE/pack takes them all the same",
        ["data.path=SCENE/pack"],
    ),
    "results already": Advice(
        "evaluate", [CHECKPOINT, "out=SCENE/held"], "holds summary.json already; choose another folder", ["out=new"]
    ),
    "no split": Advice(
        "prepare", ["source=SCENE/photos", "split=0.1", *PREPARE], "leave split out", [], without=("split",)
    ),
    "a damaged picture": Advice(
        "prepare",
        ["source=SCENE/damaged", "strict=true", *PREPARE],
        "strict=false skips such pictures",
        ["strict=false"],
    ),
    "which run": Advice("plot", ["figure=curves", "out=new"], "give run_dir=RUN", ["run_dir=SCENE/run"]),
    "no place for several": Advice(
        "plot",
        ["figure=relu", "runs=[SCENE/run]"],
        "needs out=FOLDER",
        ["run_dir=SCENE/run", "figure=curves"],
        without=("runs",),
    ),
    "no runs": Advice("results", ["runs=[]", "out=new"], "runs=[runs/a,runs/b]", ["runs=[SCENE/run]"]),
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("advice")
    pack = make_pack(folder, CLASSES)
    scaled: dict[str, Any] = {"input": {"pixel_divisor": DIVISOR, "mean": "pixel"}}
    of_pack = {**scaled, "data": {"source": "pack", "path": pack}}
    descriptions = {
        "checkpoint": of_pack,
        "moved": {**scaled, "data": {"source": "pack", "path": str(folder / "gone")}, "data_fingerprint": 1},
        "other": {**of_pack, "data_fingerprint": 1},
        "mute seven": {},
    }
    network = small(len(CLASSES))
    state = dict(build_model(network).state_dict())
    for name, about in descriptions.items():
        save_checkpoint(folder / name, state, network, about, 10)
    ten = small(10)
    save_checkpoint(folder / "mute", build_model(ten).state_dict(), ten, {}, 10)
    foreign = dict(build_model("small").state_dict())
    save_file(to_single_device(foreign), folder / "foreign.safetensors")
    convert.run(compose("convert", [f"source={folder}/checkpoint", f"out={folder}/ours.safetensors"]))
    Image.effect_noise((20, 20), 90).convert("RGB").save(folder / "a.png")
    shutil.copytree(folder / "photos", folder / "damaged")
    (folder / "damaged" / "train" / CLASSES[0] / "broken.png").write_bytes(b"x")
    make_run(folder / "run")
    (folder / "held").mkdir()
    (folder / "held" / "summary.json").write_text("{}")
    measured = {"single_ours": {"images_per_second": 1.0}}
    (folder / "report.json").write_text(json.dumps({"network": "small", "batch_size": 64, "variants": measured}))
    return folder


def attempt(command: str, overrides: list[str]) -> None:
    GIVEN.clear()
    GIVEN.update(override.partition("=")[0] for override in overrides)
    COMMANDS[command](compose(command, overrides))


@pytest.mark.parametrize("advice", ADVICE.values(), ids=ADVICE)
def test_advice_works_when_it_is_typed(
    advice: Advice, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    given = [each.replace("SCENE", str(scene)) for each in advice.given]
    then = [each.replace("SCENE", str(scene)) for each in advice.then]
    with pytest.raises(ConfigurationError) as refused:
        attempt(advice.command, [_quoted(each) for each in given])
    assert advice.says.replace("SCENE", str(scene)) in str(refused.value)
    replaced = {each.partition("=")[0] for each in then} | set(advice.without)
    kept = [each for each in given if each.partition("=")[0] not in replaced]
    attempt(advice.command, [_quoted(each) for each in (*kept, *then)])


def _quoted(override: str) -> str:
    key, _, value = override.partition("=")
    return f"{key}='{value}'" if " " in value and value[0] not in "[{" else override
