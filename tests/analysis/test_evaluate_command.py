"""`evaluate` on a tiny pack: what it prints and writes against counting by hand, and its refusals in one line."""

import csv
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import alexnet_mp.analysis.evaluate.evaluate
import alexnet_mp.parallel.mesh
from alexnet_mp.analysis.evaluate.folder import ClassErrors, class_errors, most_confused
from alexnet_mp.analysis.evaluate.pictures import draw_classes, draw_confusions
from alexnet_mp.checkpoint.convert.layout import to_single_device
from alexnet_mp.checkpoint.files import load_checkpoint, save_checkpoint
from alexnet_mp.commands import convert, evaluate
from alexnet_mp.common.cli import compose
from alexnet_mp.data.pack import open_pack
from alexnet_mp.data.prepare.prepare import prepare
from alexnet_mp.data.prepare.settings import PreparationSettings
from alexnet_mp.errors import ConfigurationError, LinkError
from alexnet_mp.model.build import build_model
from alexnet_mp.network.table import load_network, parse_network
from alexnet_mp.parallel.links import LocalLink
from alexnet_mp.training.validation import Errors, Evaluation
from tests.parallel.test_link_test import TWO_DEVICES, corrupt
from tests.support.processes import CHECKOUT, Finished, run_script, torchrun
from tests.training.test_validation import Floats, by_hand, small

EVALUATE = str(CHECKOUT / "launch" / "evaluate.py")
CLASSES = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu"]
COUNTS = {"train": 14, "val": 17, "test": 9}
DIVISOR = 64
FILES = {"summary.json", "classes.csv", "confusions.csv", "classes.png", "confusions.png"}


def make_pack(folder: Path, classes: list[str]) -> str:
    """A pack of random pictures of 20x20, coarse enough that a network tells them apart."""
    generator = np.random.default_rng(len(classes))
    for split, count in COUNTS.items():
        for i in range(count):
            path = folder / "photos" / split / classes[i % len(classes)] / f"{i:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (5, 5, 3), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
            Image.fromarray(pixels).save(path)
    prepare(PreparationSettings(source=str(folder / "photos"), out=str(folder / "pack"), workers=1, size=20))
    return str(folder / "pack")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_pack(tmp_path_factory.mktemp("seven"), CLASSES)


Save = Callable[..., str]


@pytest.fixture
def saved(pack: str, tmp_path: Path) -> Save:
    """Save a network with its initial weights, by default one that fits the pack, as a run leaves it behind."""

    def save(name: str = "step-000000001", seed: int = 1, classes: int = 7, **changes: Any) -> str:
        network = changes.pop("network", small(classes))
        description = {
            "data": {"source": "pack", "path": pack, "verify": True},
            "input": {"pixel_divisor": DIVISOR, "mean": "pixel"},
        }
        folder = tmp_path / "run" / "checkpoints" / name
        state = build_model(network, seed=seed).state_dict()
        save_checkpoint(folder, state, network, {**description, **changes}, timeout_seconds=10)
        return str(folder)

    return save


def run(*overrides: str) -> None:
    evaluate.run(compose("evaluate", ["device=cpu", *overrides]))


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


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


def test_the_same_question_is_answered_again_in_the_checkpoints_own_folder(saved: Save, tmp_path: Path) -> None:
    checkpoint = saved()
    out = tmp_path / "run" / "evaluation" / "validation-1views"
    run(f"checkpoint={checkpoint}")
    (out / "classes.csv").write_text("old")
    run(f"checkpoint={checkpoint}")
    assert (out / "classes.csv").read_text() != "old"


@pytest.mark.parametrize("changed", ["checkpoint", "input", "data"])
def test_results_for_another_question_are_not_overwritten(changed: str, saved: Save, pack: str, tmp_path: Path) -> None:
    checkpoint = saved()
    run(f"checkpoint={checkpoint}")
    before = summary(tmp_path / "run" / "evaluation" / "validation-1views")
    if changed == "checkpoint":
        arguments = [f"checkpoint={saved('step-2')}"]
    elif changed == "input":
        arguments = [f"checkpoint={checkpoint}", "input.pixel_divisor=1"]
    else:
        shutil.copytree(pack, tmp_path / "copy")
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


def test_classes_in_another_order_are_refused(saved: Save) -> None:
    checkpoint = saved(class_names=["b", "a", "c", "d", "e", "f", "g"])
    assert_says(refused(f"checkpoint={checkpoint}"), "another order", "class 0 is 'b' there")


def test_only_so_many_confusions_are_written(saved: Save, tmp_path: Path) -> None:
    checkpoint = saved()
    run(f"checkpoint={checkpoint}", f"out={tmp_path / 'all'}")
    run(f"checkpoint={checkpoint}", f"out={tmp_path / 'two'}", "most_confused=2")
    everything = table(tmp_path / "all" / "confusions.csv")
    assert len(everything) > 2
    assert table(tmp_path / "two" / "confusions.csv") == everything[:2]


WRONG = {
    "other_views": (["views=5"], ["views is 5", "1, 10"]),
    "unknown_split": (["split=val"], ["split", "'val'", "train, validation, test"]),
    "unknown_key": (["+foo=1"], ["unknown key 'foo'", "views"]),
    "unknown_key_of_the_data": (["+data.foo=1"], ["unknown key 'data.foo'", "source, path, verify"]),
    "unknown_data": (["data=pacc"], ["'pacc'", "pack", "digits"]),
    "data_that_does_not_fit": (["data=digits"], ["7 classes", "digits has 10"]),
    "data_that_is_not_there": (["data.path=nowhere"], ["nowhere", "not a pack"]),
    "empty_batch": (["batch_size=0"], ["batch_size", "0", "positive"]),
    "time_out_that_is_no_number": (["timeout_seconds=nan"], ["timeout_seconds is nan", "must be positive"]),
    "infinite_divisor": (["input.pixel_divisor=inf"], ["input.pixel_divisor", "inf", "must be at most 1e9"]),
    "no_divisor": (["input.pixel_divisor=0"], ["input.pixel_divisor", "0", "positive"]),
    "other_mean": (["input.mean=color"], ["input.mean", "'color'", "pixel, center"]),
    "more_towers_than_processes": (["placement=distributed"], ["2 towers", "torchrun --nproc-per-node=2"]),
}


def refused(*overrides: str) -> str:
    """The message, one line, of a use that cannot be."""
    with pytest.raises(ConfigurationError) as error:
        run(*overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def assert_says(line: str, *fragments: str) -> None:
    assert [fragment for fragment in fragments if fragment not in line] == [], line


@pytest.mark.parametrize("arguments, says", WRONG.values(), ids=WRONG)
def test_a_wrong_use_is_refused_and_leaves_nothing(
    arguments: list[str], says: list[str], saved: Save, tmp_path: Path
) -> None:
    assert_says(refused(f"checkpoint={saved()}", *arguments), *says)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoints"]


def test_without_a_checkpoint_the_key_is_named() -> None:
    assert_says(refused(), "checkpoint")


def test_what_is_no_checkpoint_is_named_with_those_of_the_run(saved: Save, tmp_path: Path) -> None:
    assert_says(refused(f"checkpoint={tmp_path / 'nowhere'}"), "nowhere is not a checkpoint")
    saved("step-000000330")
    assert_says(refused(f"checkpoint={tmp_path / 'run'}"), "run is not a checkpoint", "step-000000330")


def test_a_missing_or_damaged_tower_is_named(saved: Save) -> None:
    file = Path(saved()) / "tower-1.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    assert_says(refused(f"checkpoint={file.parent}"), str(file), "damaged", "SHA-256")
    file.unlink()
    assert_says(refused(f"checkpoint={file.parent}"), str(file), "missing or damaged")


@pytest.mark.slow  # the process that knows waits 20 s for the other to say it
def test_of_two_processes_the_one_with_the_damaged_tower_says_it(saved: Save, tmp_path: Path) -> None:
    checkpoint = saved()
    (Path(checkpoint) / "tower-1.safetensors").unlink()
    finished = under_torchrun(2, tmp_path, f"checkpoint={checkpoint}")
    lines = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, finished.stderr
    assert_says(lines[0], "rank 1", "tower-1.safetensors", "missing or damaged")


@pytest.mark.parametrize("key", ["data", "input", "network"])
def test_a_checkpoint_that_says_nonsense_is_named(key: str, saved: Save) -> None:
    path = Path(saved()) / "checkpoint.json"
    description = json.loads(path.read_text())
    del description["sha256"]
    description[key]["nonsense"] = 1
    digest = hashlib.sha256(json.dumps(description).encode()).hexdigest()
    path.write_text(json.dumps({**description, "sha256": digest}, indent=2) + "\n")
    assert_says(refused(f"checkpoint={path.parent}"), str(path.parent), f"unknown key '{key}.nonsense'")


def test_weights_that_do_not_fit_the_table_are_named(saved: Save) -> None:
    checkpoint, (state, _) = saved(), load_checkpoint(saved("other", classes=5))
    _, description = load_checkpoint(checkpoint, towers=[])
    shutil.rmtree(checkpoint)
    save_checkpoint(Path(checkpoint), state, small(7), description, timeout_seconds=10)
    line = refused(f"checkpoint={checkpoint}")
    assert_says(line, checkpoint, "towers.0.fc8.bias is [5]", "by the table [7]")


def test_a_pack_that_has_moved_is_found_by_the_fix(saved: Save, pack: str, tmp_path: Path) -> None:
    checkpoint = saved(data={"source": "pack", "path": "packs/moved", "verify": True})
    assert_says(refused(f"checkpoint={checkpoint}"), "packs/moved", checkpoint, "data.path=FOLDER")
    run(f"checkpoint={checkpoint}", f"data.path={pack}")


def test_a_pack_with_other_classes_is_refused(saved: Save, tmp_path: Path) -> None:
    three = make_pack(tmp_path / "three", CLASSES[:3])
    assert_says(refused(f"checkpoint={saved()}", f"data.path={three}"), "7 classes", "pack has 3")


DIFFERENT = {
    "classes": ({"classes": 5}, ["different network", "7 classes", "5 classes"]),
    "towers": ({"network": small(7).cut_into(1)}, ["different network", "2 towers", "1 tower"]),
    "image": (
        {"network": parse_network({**small(7).to_mapping(), "image": [3, 18, 18]})},
        ["different network", "3x16x16", "3x18x18"],
    ),
    "input": ({"input": {"pixel_divisor": 1, "mean": "pixel"}}, ["different scale of the input", "64", "1"]),
    "data": ({"data": {"source": "digits"}}, ["different data", "pack", "digits", "add data=pack"]),
}


@pytest.mark.parametrize("changes, says", DIFFERENT.values(), ids=DIFFERENT)
def test_members_that_cannot_be_averaged_are_refused(changes: dict[str, Any], says: list[str], saved: Save) -> None:
    one, two = saved("one"), saved("two", **changes)
    assert_says(refused(f"checkpoint=[{one},{two}]"), one, two, *says)


def test_a_checkpoint_is_named_once_in_an_ensemble(saved: Save) -> None:
    checkpoint = saved()
    assert_says(refused(f"checkpoint=[{checkpoint},{checkpoint}/]"), "each named once")
    assert_says(refused("checkpoint=[]"), "one checkpoint or more")


def test_members_of_different_data_are_averaged_on_data_that_are_named(saved: Save, pack: str, tmp_path: Path) -> None:
    one, two = saved("one"), saved("two", data={"source": "pack", "path": "elsewhere"})
    run(f"checkpoint=[{one},{two}]", "data=pack", f"data.path={pack}", f"out={tmp_path / 'out'}")


def test_a_loss_that_is_not_a_number_is_no_result(saved: Save, tmp_path: Path) -> None:
    network = load_network("small")
    checkpoint = saved(network=network, data={"source": "digits"})
    state, description = load_checkpoint(checkpoint)
    state["towers.0.fc8.bias"][0] = math.nan
    shutil.rmtree(checkpoint)
    save_checkpoint(
        Path(checkpoint),
        state,
        network,
        {"data": description["data"], "input": description["input"]},
        timeout_seconds=10,
    )
    with pytest.raises(FloatingPointError, match="loss on validation is nan"):
        run(f"checkpoint={checkpoint}")
    assert not list((tmp_path / "run" / "evaluation").rglob("summary.json"))


def test_a_link_that_corrupts_is_found_before_anything_is_evaluated(
    saved: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alexnet_mp.parallel.mesh, "LocalLink", corrupt(LocalLink, ("conv3", "forward"), host=True))
    monkeypatch.setattr(alexnet_mp.analysis.evaluate.evaluate, "choose_placement", lambda *_: TWO_DEVICES)
    with pytest.raises(LinkError, match=r"also through host memory.*conv3 forward"):
        run(f"checkpoint={saved(network=load_network('small'), data={'source': 'digits'})}")


def test_a_user_sees_one_line_and_code_2(tmp_path: Path) -> None:
    finished = run_script(EVALUATE, ["checkpoint=nowhere", "views=1"], tmp_path)
    assert (finished.code, finished.stdout) == (2, "")
    assert_says(finished.stderr, "error: ", "nowhere is not a checkpoint")
    assert finished.stderr.count("\n") == 1


def of_many_classes(classes: int) -> tuple[Evaluation, list[str]]:
    """Every class has 50 images; class c gets c % 50 of them wrong, all taken for the next class."""
    confusions = torch.zeros(classes, classes, dtype=torch.long)
    for label in range(classes):
        confusions[label, label] += 50 - label % 50
        confusions[label, (label + 1) % classes] += label % 50
    names = [f"class {label} with $a$ long name, and its synonyms" for label in range(classes)]
    return Evaluation(Errors(0, 0, 0, 50 * classes), confusions, confusions.diagonal() // 2), names


def test_tables_of_many_classes_are_right() -> None:
    evaluation, names = of_many_classes(200)
    classes, pairs = class_errors(evaluation, names), most_confused(evaluation, names)
    assert [each.top1_error for each in classes] == [label % 50 / 50 for label in range(200)]
    # Four classes each have 49, 48, ... 1 images wrong.
    assert [pair.count for pair in pairs] == [count for count in range(49, 0, -1) for _ in range(4)]
    assert [(pair.label, pair.predicted) for pair in pairs[:2]] == [(names[49], names[50]), (names[99], names[100])]
    assert pairs[0].fraction == 49 / 50


def test_a_class_without_images_has_no_error() -> None:
    evaluation = Evaluation(Errors(0, 0, 0, 2), torch.tensor([[1, 1], [0, 0]]), torch.tensor([0, 0]))
    assert class_errors(evaluation, ["a", "b"]) == [ClassErrors("a", 2, 0.5, 0.0), ClassErrors("b", 0, None, None)]


@pytest.mark.parametrize("classes", [1, 20, 31, 1000])
def test_pictures_of_any_number_of_classes_have_a_size_that_can_be_read(classes: int, tmp_path: Path) -> None:
    evaluation, names = of_many_classes(classes)
    draw_classes(class_errors(evaluation, names), tmp_path / "classes.png", "$title")
    pairs = most_confused(evaluation, names)
    draw_confusions(evaluation.confusions, names, pairs, tmp_path / "confusions.png", "$title")
    for name in ("classes.png", "confusions.png"):
        width, height = Image.open(tmp_path / name).size
        assert 300 < width < 2000
        assert 200 < height < 2000
