"""What cannot be evaluated is refused by `evaluate` in one line and leaves nothing."""

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

import alexnet_mp.analysis.evaluate.evaluate
import alexnet_mp.parallel.mesh
from alexnet_mp.checkpoint.files import load_checkpoint, save_checkpoint
from alexnet_mp.errors import LinkError
from alexnet_mp.network.table import load_network, parse_network
from alexnet_mp.parallel.links import LocalLink
from tests.analysis.test_evaluate_command import EVALUATE, under_torchrun
from tests.parallel.test_link_test import TWO_DEVICES, corrupt
from tests.support.evaluations import CLASSES, Save, assert_says, make_pack, refused, run
from tests.support.processes import run_script
from tests.training.test_validation import small


def test_classes_in_another_order_are_refused(saved: Save) -> None:
    checkpoint = saved(class_names=["b", "a", "c", "d", "e", "f", "g"])
    assert_says(refused(f"checkpoint={checkpoint}"), "another order", "class 0 is 'b' there")


WRONG = {
    "other_views": (["views=5"], ["views is 5", "1, 9, 10"]),
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
    assert_says(refused(f"checkpoint={tmp_path / 'run'}@12"), "no checkpoint '12'", "run@330")


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
    monkeypatch.setattr(alexnet_mp.analysis.evaluate.evaluate, "choose_placement", lambda *_, **__: TWO_DEVICES)
    with pytest.raises(LinkError, match=r"also through host memory.*conv3 forward"):
        run(f"checkpoint={saved(network=load_network('small'), data={'source': 'digits'})}")


def test_a_user_sees_one_line_and_code_2(tmp_path: Path) -> None:
    finished = run_script(EVALUATE, ["checkpoint=nowhere", "views=1"], tmp_path)
    assert (finished.code, finished.stdout) == (2, "")
    assert_says(finished.stderr, "error: ", "nowhere is not a checkpoint")
    assert finished.stderr.count("\n") == 1
