"""TensorBoard and W&B see what the run folder has, and the towers' kernels; no failure of theirs reaches a run."""

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch

from alexnet_mp import ConfigurationError, load_checkpoint, load_network
from alexnet_mp.common.cli import compose
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.mesh import make_mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.training import loggers
from alexnet_mp.training.config import parse_train_settings
from alexnet_mp.training.kernel_sheet import first_layer_kernels, kernel_sheet, kernels_of_run
from alexnet_mp.training.run_folder import RunFolder
from alexnet_mp.training.run_lock import RunLock
from tests.support.disturbed import trained
from tests.support.processes import run_processes
from tests.training.test_train import NARROW

NARROW_EPOCH = (*NARROW, "recipe.epochs=1")
RECORDS = [{"kind": "train", "step": step, "epoch": 1, "loss": 1 / step} for step in (1, 2, 3)]
RECORDS.append({"kind": "validation", "step": 3, "epoch": 1, "loss": 0.7, "top1_error": 0.25, "top5_error": 0.1})
PICTURE = np.zeros((4, 6, 3), dtype=np.uint8)


def lines(folder: Path) -> list[dict]:
    """What `metrics.jsonl` says, but for speeds."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in found]


class Remembering:
    """A logger that remembers what it is told; one that `fails` raises when it comes to that."""

    def __init__(self, fails: str = "") -> None:
        self.got: list[tuple] = []
        self._fails = fails

    def __call__(self, folder: Path, after: int, configuration: str, told: Iterable) -> None:
        self._note("open", after, configuration)
        for step, values in told:
            self._note("picture" if "kernels/conv1" in values else "numbers", step, dict(values))
        self._note("close")

    def kinds(self) -> list[str]:
        return [kind for kind, *_ in self.got]

    def _note(self, *what: object) -> None:
        self.got.append(what)
        if what[0] == self._fails:
            raise RuntimeError(f"{self._fails} is broken")


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("alexnet_mp"), "propagate", True)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Remembering:
    """What stands for TensorBoard."""
    logger = Remembering()
    monkeypatch.setitem(loggers.LOGGERS, "tensorboard", logger)
    return logger


def told(folder: Path, names: Sequence[str] | None) -> RunFolder:
    """A run folder that was told three steps, a validation and a picture, with these loggers."""
    folder.mkdir()
    run = RunFolder(folder, is_main=True, loggers=names)
    run.begin(RunLock(str(folder)), 0, "seed: 7")
    for record in RECORDS:
        run.append(record)
    run.show(3, {"kernels/conv1": PICTURE})
    run.close()
    return run


def test_a_logger_sees_every_number_and_after_each_epoch_the_kernels_of_both_towers(
    seen, after_one_epoch, tmp_path, monkeypatch
):
    monkeypatch.setitem(loggers.LOGGERS, "wandb", Remembering(fails="numbers"))
    run = trained(tmp_path / "run", *NARROW_EPOCH, "loggers=[wandb,tensorboard]")
    assert lines(run) == lines(after_one_epoch), "neither the loggers nor the failure of one changes a loss"
    assert "run_dir" in seen.got[0][2]
    assert seen.kinds() == ["open", *["numbers"] * 23, "picture", "close"]
    assert numbers(run) == [(step, values) for _, step, values in seen.got[1:24]]
    _, step, picture = seen.got[24]
    assert (step, *picture) == (22, "kernels/conv1")
    state, _ = load_checkpoint(run / "checkpoints" / "step-000000022")
    np.testing.assert_array_equal(picture["kernels/conv1"], kernel_sheet(first_layer_kernels(state, "conv1"), 4))
    assert len([line for line in (run / "train.log").read_text().splitlines() if "is broken" in line]) == 1


def numbers(folder: Path) -> list[tuple[int, dict]]:
    """The lines of `metrics.jsonl` as loggers name them."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        (line["step"], {f"{line['kind']}/{key}": value for key, value in line.items() if key not in ("kind", "step")})
        for line in found
    ]


@pytest.mark.parametrize("fails", ["open", "numbers", "picture", "close"])
def test_a_logger_that_raises_is_named_once_and_the_others_go_on(fails, seen, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(loggers.LOGGERS, "wandb", Remembering(fails))
    run = told(tmp_path / "run", ["wandb", "tensorboard"])
    assert lines(run.path) == RECORDS
    assert caplog.messages == [f"logger wandb: RuntimeError: {fails} is broken; the run goes on without it"]
    assert seen.kinds() == ["open", *["numbers"] * 4, "picture", "close"]


def test_a_logger_that_hangs_neither_holds_a_step_nor_keeps_a_run_from_ending(tmp_path, monkeypatch, caplog):
    release = Event()
    monkeypatch.setattr(loggers, "SECONDS_TO_CLOSE", 0.01)
    monkeypatch.setitem(loggers.LOGGERS, "wandb", lambda *_: release.wait(60))
    try:
        run = told(tmp_path / "run", ["wandb"])
    finally:
        release.set()
    assert lines(run.path) == RECORDS
    assert caplog.messages == ["logger wandb: not done in 0 s; the run ends without it"]


def test_a_logger_that_is_not_installed_is_told_how_to_install(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    told(tmp_path / "run", ["wandb"])
    (message,) = caplog.messages
    assert message.startswith("logger wandb: ModuleNotFoundError: ")
    assert message.endswith(" (pip install wandb); the run goes on without it")


def test_without_a_choice_tensorboard_is_used_if_it_is_installed(seen, tmp_path, monkeypatch):
    assert (("tensorboard",) if find_spec("tensorboard") else ()) == loggers.INSTALLED
    for installed in ((), ("tensorboard",)):
        monkeypatch.setattr("alexnet_mp.training.run_folder.INSTALLED", installed)
        told(tmp_path / str(len(installed)), None)
        assert bool(seen.got) == bool(installed)


def test_a_logger_that_there_is_not_is_refused():
    with pytest.raises(ConfigurationError, match=r"loggers\[0\] is 'tensorbord'.*did you mean 'tensorboard'"):
        parse_train_settings(compose("train", ["loggers=[tensorbord]"]))


def sheet_of(world_size: int, rank: int) -> np.ndarray:
    launch = Launch(rank, world_size, rank, world_size)
    placement = choose_placement("auto", "cpu", 2, launch)
    mesh = make_mesh(placement, 30)
    return kernels_of_run(TowerModel(load_network("small"), placement, mesh.link(), seed=3), mesh)["kernels/conv1"]


def in_worker(world_size: int) -> np.ndarray:
    return sheet_of(world_size, torch.distributed.get_rank())


def test_kernels_of_towers_in_two_processes_are_those_of_one():
    one = sheet_of(1, 0)
    for sheet in run_processes(2, in_worker, 2):
        np.testing.assert_array_equal(sheet, one)


def wandb_records(file: Path) -> Iterator[bytes]:
    """The records of W&B's file: LevelDB's log format behind a header of 7 bytes, in blocks of 32 KiB."""
    data, place, record = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def test_wandb_without_a_login_is_offline_and_has_the_numbers_of_the_run_folder(tmp_path, monkeypatch, caplog):
    wandb = pytest.importorskip("wandb", reason="W&B is not installed: pip install -e '.[wandb]'")
    from wandb.proto.wandb_internal_pb2 import Record

    for login in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(login, raising=False)
    for place in ("NETRC", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(place, str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_SILENT", "true")
    try:
        run = told(tmp_path / "run", ["wandb"])
    finally:
        wandb.teardown()
    assert caplog.messages == []
    (file,) = run.path.glob("wandb/offline-run-*/*.wandb")
    records = [Record.FromString(each) for each in wandb_records(file)]
    (begun,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
    assert (begun.project, begun.run_group) == ("alexnet-mp", "run")
    assert {item.key: json.loads(item.value_json) for item in begun.config.update}["seed"] == 7
    rows = [
        {"/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    expected: dict[int, dict] = {}
    for step, values in numbers(run.path):
        expected.setdefault(step, {}).update(values)
    kinds = ("train/", "validation/")
    found = {row["_step"]: {key: value for key, value in row.items() if key.startswith(kinds)} for row in rows}
    assert found == expected
    assert (rows[-1]["kernels/conv1/width"], rows[-1]["kernels/conv1/height"]) == (6, 4)


def test_tensorboard_has_the_numbers_and_the_picture_and_drops_what_is_done_again(tmp_path):
    name = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(name, reason="TensorBoard is not installed: pip install -e '.[tensorboard]'")
    run = told(tmp_path / "run", ["tensorboard"])
    events = accumulator.EventAccumulator(str(run.path)).Reload()
    (picture,) = events.Images("kernels/conv1")
    assert (picture.step, picture.width, picture.height) == (3, 6, 4)
    again = RunFolder(run.path, is_main=True, loggers=("tensorboard",))
    again.begin(RunLock(str(run.path)), 2, "seed: 7")
    again.append({**RECORDS[2], "loss": 9.0})
    again.close()
    events = accumulator.EventAccumulator(str(run.path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 1.0), (2, 0.5), (3, 9.0)]
    assert events.Images("kernels/conv1") == [], "the picture of step 3 is of what is done again"
