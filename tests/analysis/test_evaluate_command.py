"""`evaluate` on a tiny pack: what it prints and writes against counting by hand, and that it writes over nothing."""

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from alexnet_mp.checkpoint.convert.layout import to_single_device
from alexnet_mp.checkpoint.files import load_checkpoint
from alexnet_mp.commands import convert
from alexnet_mp.common.cli import compose
from alexnet_mp.data.pack import open_pack
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.build import build_model
from alexnet_mp.network.table import parse_network
from tests.support.evaluations import CLASSES, COUNTS, DIVISOR, Save, run, summary
from tests.support.processes import CHECKOUT, Finished, run_script, torchrun
from tests.training.test_validation import Floats, by_hand

EVALUATE = str(CHECKOUT / "launch" / "evaluate.py")


FILES = {"summary.json", "classes.csv", "confusions.csv", "classes.png", "confusions.png"}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def probabilities(folder: str, checkpoints: list[str], split: str, views: int) -> tuple[Floats, list[int]]:
    """The mean softmax [n, classes] of a split, and its labels, computed in float64 by plain loops."""
    opened = open_pack(Path(folder))
    images = opened.splits[split]
    pixels = np.empty((len(images), *images.image_shape), dtype=np.uint8)
    images.read(np.arange(len(images)), pixels)
    models = []
    for checkpoint in checkpoints:
        state, description = load_checkpoint(checkpoint)
        model = build_model(parse_network(description["network"]), dtype=torch.float64)
        model.load_state_dict(state)
        models.append(model)
    return by_hand(models, pixels, opened.statistics.mean_image, views, "pixel", DIVISOR), images.labels.tolist()


@pytest.mark.parametrize("views", [1, 10])
def test_what_is_written_is_what_counting_by_hand_gives(
    views: int, pack: str, saved: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = saved()
    run(f"checkpoint={checkpoint}", f"views={views}", "precision=float64")
    out = tmp_path / "run" / "evaluation" / f"validation-{views}views"
    assert {path.name for path in out.iterdir()} == FILES

    rows, labels = probabilities(pack, [checkpoint], "validation", views)
    predicted = rows.argmax(axis=1).tolist()
    assert len(set(predicted)) > 1
    first_five = [np.argsort(-row)[:5].tolist() for row in rows]
    wrong = [label != guess for label, guess in zip(labels, predicted, strict=True)]
    wrong5 = [label not in five for label, five in zip(labels, first_five, strict=True)]
    loss = -np.mean([math.log(row[label]) for row, label in zip(rows, labels, strict=True)])

    found = summary(out)
    assert (found["images"], found["split"], found["views"], found["network"]) == (17, "validation", views, "small")
    assert found["loss"] == pytest.approx(loss, rel=1e-10)
    assert found["top1_error"] == pytest.approx(sum(wrong) / 17)
    assert found["top5_error"] == pytest.approx(sum(wrong5) / 17)
    assert found["checkpoints"] == [checkpoint]
    assert found["data"] == {"name": "pack", "source": "pack", "path": pack}
    assert found["input"] == {"pixel_divisor": DIVISOR, "mean": "pixel"}
    assert found["images_per_second"] == pytest.approx(17 / found["seconds"])
    assert found["versions"]["torch"] == torch.__version__

    for row, (label, name) in zip(table(out / "classes.csv"), enumerate(CLASSES), strict=True):
        mine = [i for i, each in enumerate(labels) if each == label]
        assert (row["name"], int(row["images"])) == (name, len(mine))
        assert float(row["top1_error"]) == pytest.approx(sum(wrong[i] for i in mine) / len(mine))
        assert float(row["top5_error"]) == pytest.approx(sum(wrong5[i] for i in mine) / len(mine))

    pairs = [pair for pair in zip(labels, predicted, strict=True) if pair[0] != pair[1]]
    by_count = sorted(set(pairs), key=lambda pair: (-pairs.count(pair), pair))
    assert [(row["label"], row["predicted"]) for row in table(out / "confusions.csv")] == [
        (CLASSES[label], CLASSES[guess]) for label, guess in by_count
    ]
    for row, pair in zip(table(out / "confusions.csv"), by_count, strict=True):
        assert int(row["count"]) == pairs.count(pair)
        assert float(row["fraction"]) == pytest.approx(pairs.count(pair) / labels.count(pair[0]))

    printed = capsys.readouterr().out
    for words in ("small", checkpoint, pack, f"{100 * sum(wrong) / 17:.2f} %", f"{loss:.4f}", "17 images", str(out)):
        assert words in printed
    for picture in ("classes.png", "confusions.png"):
        assert min(Image.open(out / picture).size) > 200


def test_an_ensemble_of_checkpoints_is_averaged(pack: str, saved: Save, tmp_path: Path) -> None:
    checkpoints = [saved("step-1", seed=1), saved("step-2", seed=2)]
    run(f"checkpoint=[{','.join(checkpoints)}]", "split=test", "precision=float64")
    found = summary(tmp_path / "run" / "evaluation" / "test-1views-ensemble-of-2")
    rows, labels = probabilities(pack, checkpoints, "test", views=1)
    loss = -np.mean([math.log(row[label]) for row, label in zip(rows, labels, strict=True)])
    assert found["loss"] == pytest.approx(loss, rel=1e-10)
    assert found["images"] == len(labels) == COUNTS["test"]
    assert found["checkpoints"] == checkpoints


def under_torchrun(processes: int, tmp_path: Path, *overrides: str) -> Finished:
    return torchrun(processes, [EVALUATE, "device=cpu", *overrides], tmp_path, 150)


def test_two_processes_write_what_one_writes(saved: Save, tmp_path: Path) -> None:
    checkpoint = f"checkpoint={saved()}"
    alone = run_script(EVALUATE, [checkpoint, "views=10", "device=cpu", "out=one"], tmp_path)
    assert alone.code == 0, alone.stderr
    together = under_torchrun(2, tmp_path, checkpoint, "views=10", "out=two")
    assert together.code == 0, together.stderr
    assert together.stdout.count("top-1 error") == 1, "the main process alone speaks"
    one, two = summary(tmp_path / "one"), summary(tmp_path / "two")
    assert (one["placement"], two["placement"]) == ("simulated", "distributed")
    for key in ("loss", "top1_error", "top5_error", "images"):
        assert one[key] == two[key]
    assert one["command"] == f"torchrun launch/evaluate.py {checkpoint} views=10 device=cpu"
    assert two["command"] == f"torchrun --nproc-per-node=2 launch/evaluate.py device=cpu {checkpoint} views=10"
    for name in ("classes.csv", "confusions.csv"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()


def test_the_same_question_is_answered_again_in_the_checkpoints_own_folder(
    saved: Save, pack: str, tmp_path: Path
) -> None:
    checkpoint = saved()
    out = tmp_path / "run" / "evaluation" / "validation-1views"
    run(f"checkpoint={checkpoint}")
    copy = shutil.copytree(pack, tmp_path / "copy")
    for again in ([], [f"data.path={copy}"]):  # data are what they are, wherever they lie
        (out / "classes.csv").write_text("old")
        run(f"checkpoint={checkpoint}", *again)
        assert (out / "classes.csv").read_text() != "old"


@pytest.mark.parametrize("changed", ["checkpoint", "input", "data"])
def test_results_for_another_question_are_not_overwritten(changed: str, saved: Save, pack: str, tmp_path: Path) -> None:
    checkpoint = saved()
    run(f"checkpoint={checkpoint}")
    before = summary(tmp_path / "run" / "evaluation" / "validation-1views")
    if changed == "checkpoint":
        arguments = [f"checkpoint={saved('step-2', seed=2)}"]
    elif changed == "input":
        arguments = [f"checkpoint={checkpoint}", "input.pixel_divisor=1"]
    else:
        manifest_file = shutil.copytree(pack, tmp_path / "copy") / "manifest.json"
        manifest = json.loads(manifest_file.read_text())
        manifest["splits"]["validation"] = manifest["splits"].pop("test")
        manifest_file.write_text(json.dumps(manifest))
        arguments = [f"checkpoint={checkpoint}", f"data.path={tmp_path / 'copy'}"]
    with pytest.raises(ConfigurationError, match=f"holds results for {changed}.*out=FOLDER"):
        run(*arguments)
    assert summary(tmp_path / "run" / "evaluation" / "validation-1views") == before
    run(*arguments, f"out={tmp_path / 'other'}")
    assert (tmp_path / "other" / "summary.json").exists()


def test_a_folder_that_was_named_is_not_overwritten(saved: Save, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "classes.csv").write_text("somebody's")
    with pytest.raises(ConfigurationError, match=r"out holds classes\.csv already"):
        run(f"checkpoint={saved()}", f"out={tmp_path / 'out'}")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["classes.csv"]


def test_a_checkpoint_outside_of_a_run_has_its_results_beside_it(saved: Save, tmp_path: Path) -> None:
    Path(saved()).rename(tmp_path / "mine")
    run(f"checkpoint={tmp_path / 'mine'}", "split=train")
    assert summary(tmp_path / "mine-evaluation" / "train-1views")["images"] == COUNTS["train"]


def test_a_checkpoint_converted_back_knows_its_input_and_is_told_its_data(
    pack: str, saved: Save, tmp_path: Path
) -> None:
    checkpoint, single, back = saved(), tmp_path / "single.safetensors", tmp_path / "back"
    convert.run(compose("convert", [f"source={checkpoint}", f"out={single}"]))
    convert.run(compose("convert", [f"source={single}", f"out={back}"]))
    with pytest.raises(ConfigurationError, match=r"back.*does not say what it was trained on; add data=pack"):
        run(f"checkpoint={back}")
    run(f"checkpoint={checkpoint}", f"out={tmp_path / 'first'}")
    run(f"checkpoint={back}", "data=pack", f"data.path={pack}", f"out={tmp_path / 'second'}")
    assert summary(tmp_path / "second")["loss"] == summary(tmp_path / "first")["loss"]


def test_weights_from_elsewhere_are_told_their_data_and_input(pack: str, saved: Save, tmp_path: Path) -> None:
    checkpoint, foreign, back = saved(), tmp_path / "foreign.safetensors", tmp_path / "back"
    state, description = load_checkpoint(checkpoint)
    save_file(to_single_device(state), foreign)
    arguments = compose("convert", [f"source={foreign}", f"out={back}"])
    convert.run({**arguments, "network": description["network"]})
    run(f"checkpoint={checkpoint}", f"out={tmp_path / 'first'}")
    given = [f"checkpoint={back}", "data=pack", f"data.path={pack}"]
    with pytest.raises(ConfigurationError, match=r"back.*does not say how its images were scaled; add input\."):
        run(*given, f"input.pixel_divisor={DIVISOR}")
    run(*given, f"input.pixel_divisor={DIVISOR}", "input.mean=pixel", f"out={tmp_path / 'second'}")
    assert summary(tmp_path / "second")["loss"] == summary(tmp_path / "first")["loss"]


def test_only_so_many_confusions_are_written(saved: Save, tmp_path: Path) -> None:
    checkpoint = saved()
    run(f"checkpoint={checkpoint}", f"out={tmp_path / 'all'}")
    run(f"checkpoint={checkpoint}", f"out={tmp_path / 'two'}", "most_confused=2")
    everything = table(tmp_path / "all" / "confusions.csv")
    assert len(everything) > 2
    assert table(tmp_path / "two" / "confusions.csv") == everything[:2]
