"""Every command that takes a checkpoint takes it by name, RUN@best, or lists the choices."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from alexnet_mp import ConfigurationError, find_checkpoint
from alexnet_mp.checkpoint import files
from alexnet_mp.checkpoint.files import save_checkpoint
from alexnet_mp.commands import classify, convert, evaluate, plot, train
from alexnet_mp.data.preprocessing import InputScale
from tests.support.checkpoints import narrow_network, weights
from tests.support.presets import composed

OLD, NEW, NOT_VALIDATED = "step-000000010", "step-000000020", "step-000000020-unvalidated"


def save(run: Path, name: str, **more: Any) -> None:
    description = {
        "progress": {"best_checkpoint": OLD},
        "data": {"source": "digits"},
        "input": asdict(InputScale(64, "pixel")),
        **more,
    }
    save_checkpoint(run / "checkpoints" / name, weights(), narrow_network(), description, timeout_seconds=5)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of one experiment, and a picture. The first has its best checkpoint, its newest, and one of a kill."""
    folder = tmp_path_factory.mktemp("work")
    for name in (OLD, NOT_VALIDATED, NEW):
        save(folder / "runs" / "digits" / "first", name)
    save(folder / "runs" / "digits" / "second", NEW)
    Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(folder / "picture.png")
    return folder / "runs"


def finetune(checkpoint: str, out: Path) -> None:
    network = narrow_network().to_mapping()
    initial = {"checkpoint": checkpoint, "but": []}
    train.run({**composed("train"), "network": network, "initial_weights": initial, "device": "cpu", "dry_run": True})


def with_keys(command: str, **keys: Any) -> Mapping[str, Any]:
    return {**composed(command, *(f"{key}=x" for key in keys)), "device": "cpu", **keys}


COMMANDS: dict[str, Callable[[str, Path], object]] = {
    "evaluate": lambda name, out: evaluate.run(with_keys("evaluate", checkpoint=name, out=str(out))),
    "classify": lambda name, out: classify.run(
        with_keys("classify", checkpoint=name, pictures=str(out.parent / "picture.png"))
    ),
    "convert": lambda name, out: convert.run(
        {**composed("convert", "source=x", "out=x"), "source": name, "out": str(out.with_suffix(".safetensors"))}
    ),
    "plot": lambda name, out: plot.run(
        {
            **composed("plot"),
            **{"run_dir": str(out.parent), "checkpoint": name, "figure": "nearest_neighbors", "among": 9},
            **{"examples": 1, "out": str(out), "device": "cpu"},
        }
    ),
    "train": finetune,
}
NAMES = {
    "a run": ("digits/first", NEW),
    "its folder of checkpoints": ("digits/first/checkpoints", NEW),
    "the best": ("digits/first@best", OLD),
    "a step": ("digits/first@10", OLD),
    "a step's folder": (f"digits/first/checkpoints/{NOT_VALIDATED}", NOT_VALIDATED),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name, expected", NAMES.values(), ids=NAMES)
def test_every_command_reads_the_checkpoint_that_is_named(
    command: str, name: str, expected: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[str] = set()
    load = files._load

    def noted(folder: Path, towers: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
        read.add(folder.name)
        return load(folder, towers)

    monkeypatch.setattr(files, "_load", noted)
    (tmp_path / "picture.png").write_bytes((runs.parent / "picture.png").read_bytes())
    COMMANDS[command](str(runs / name), tmp_path / "out")
    assert read == {expected}


REFUSED = {
    "a folder of runs": ("digits", ["folder of runs", "first, second"]),
    "a folder of their folders": ("", ["folder of runs", "digits/first, digits/second"]),
    "a run that is not there": ("digits/frist", ["it does not exist", "did you mean 'first'"]),
    "nothing there": ("nowhere", ["is not a checkpoint: it does not exist", "in ", "digits"]),
    "no such step": ("digits/first@15", ["no checkpoint '15'", "first@10, first@20, first@best"]),
    "no best": ("digits/second@bset", ["no checkpoint 'bset'", "second@20"]),
    "of several runs": ("digits@best", ["folder of runs", "first, second"]),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name, says", REFUSED.values(), ids=REFUSED)
def test_a_name_that_means_no_checkpoint_ends_in_one_line_with_the_choices(
    command: str, name: str, says: list[str], runs: Path, tmp_path: Path
) -> None:
    (tmp_path / "picture.png").write_bytes((runs.parent / "picture.png").read_bytes())
    with pytest.raises(ConfigurationError) as refused:
        COMMANDS[command](str(runs / name), tmp_path / "out")
    line = str(refused.value)
    assert "\n" not in line
    assert [each for each in says if each not in line] == [], line


def test_a_damaged_checkpoint_is_not_the_newest(tmp_path: Path) -> None:
    for name in (OLD, NEW):
        save(tmp_path, name)
    (tmp_path / "checkpoints" / NEW / "tower-1.safetensors").write_bytes(b"damaged")
    assert find_checkpoint(tmp_path).name == OLD
    (tmp_path / "checkpoints" / OLD / "tower-0.safetensors").unlink()
    with pytest.raises(ConfigurationError, match=r"no whole checkpoint: .*damaged"):
        find_checkpoint(tmp_path)


def test_a_folder_with_an_at_sign_in_its_name_is_itself(tmp_path: Path) -> None:
    save(tmp_path / "mine@best", OLD)
    assert find_checkpoint(tmp_path / "mine@best").parent.parent.name == "mine@best"
    assert find_checkpoint(tmp_path / "mine@best@10").name == OLD


def test_a_relative_name_means_a_folder_below_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "run", OLD)
    monkeypatch.chdir(tmp_path / "run")
    expected = tmp_path / "run" / "checkpoints" / OLD
    assert [find_checkpoint(name).resolve() for name in (".", "../run", "@10", f"checkpoints/{OLD}")] == 4 * [expected]
