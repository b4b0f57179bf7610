"""Checkpoints: what is written is read, what is damaged never is, and writing does not wait for the disk."""

import errno
import json
import os
import random
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor

from alexnet_mp import ConfigurationError
from alexnet_mp.checkpoint import files
from alexnet_mp.checkpoint import files as checkpoint_files
from alexnet_mp.checkpoint.files import (
    load_checkpoint,
    load_momentum,
    save_checkpoint,
    verify_checkpoint,
)
from alexnet_mp.checkpoint.retention import newest_checkpoint, prune, remove_unfinished
from alexnet_mp.checkpoint.writer import CheckpointWriter
from tests.support.checkpoints import narrow_network, weights


def of_towers(*towers: int) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights().items() if int(name.split(".")[1]) in towers}


def momentum() -> dict[str, Tensor]:
    return {name: tensor + 1 for name, tensor in weights().items()}


def save(folder: Path, tensors: dict[str, Tensor] | None = None, description: dict | None = None, **settings) -> Path:
    settings = {"timeout_seconds": 10, "momentum": momentum() if tensors is None else None, **settings}
    save_checkpoint(folder, tensors or weights(), narrow_network(), description or {"seed": 0}, **settings)
    return folder


def test_what_is_saved_is_loaded(tmp_path):
    folder = save(tmp_path / "one", description={"seed": 3, "class_names": ["ä", "\udc80"], "rate": 0.1})
    state, description = load_checkpoint(folder)
    assert state.keys() == weights().keys()
    assert all(torch.equal(tensor, weights()[name]) for name, tensor in state.items())
    found = load_momentum(folder, [0, 1])
    assert found.keys() == weights().keys()
    assert all(torch.equal(tensor, momentum()[name]) for name, tensor in found.items())
    assert {key: description[key] for key in ("seed", "class_names", "rate", "network")} == {
        "seed": 3,
        "class_names": ["ä", "\udc80"],
        "rate": 0.1,
        "network": narrow_network().to_mapping(),
    }
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint.json",
        "tower-0.safetensors",
        "tower-1.safetensors",
    ]


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum here")
def test_the_digests_are_those_that_sha256sum_gives(tmp_path):
    folder = save(tmp_path / "one")
    listed = json.loads((folder / "checkpoint.json").read_text())["sha256_of_files"]
    lines = "".join(f"{digest}  {folder / name}\n" for name, digest in listed.items())
    assert subprocess.run(["sha256sum", "-c"], input=lines, text=True, capture_output=True).returncode == 0
    assert len(listed) == 2


def test_processes_write_their_own_towers_and_the_first_waits_for_the_other(tmp_path):
    folder = tmp_path / "one"
    first = threading.Thread(target=save, args=(folder, of_towers(0)))
    first.start()
    save(folder, of_towers(1))
    first.join()
    state, _ = load_checkpoint(folder)
    assert all(torch.equal(tensor, weights()[name]) for name, tensor in state.items())
    assert list(tmp_path.iterdir()) == [folder]


def test_a_tower_that_is_not_written_is_waited_for_so_long_and_nothing_appears(tmp_path):
    with pytest.raises(TimeoutError, match="tower-1"):
        save(tmp_path / "one", of_towers(0), timeout_seconds=0.05)
    abandoned = threading.Event()
    abandoned.set()
    with pytest.raises(files.Abandoned, match="tower-1"):
        save(tmp_path / "two", of_towers(0), timeout_seconds=60, abandoned=abandoned)
    assert list(tmp_path.iterdir()) == []


def two_checkpoints(checkpoints: Path) -> tuple[Path, Path]:
    return save(checkpoints / "step-000000005"), save(checkpoints / "step-000000010", description={"seed": 1})


@pytest.mark.parametrize("block", range(4))
def test_no_damage_is_loaded_and_the_checkpoint_before_is_used(block, tmp_path):
    """Fifty random truncations, flipped bits and lost files a block, over all files of a checkpoint."""
    before, newest = two_checkpoints(tmp_path / "checkpoints")
    assert newest_checkpoint(tmp_path / "checkpoints").folder == newest
    draw = random.Random(block)
    whole = {path: path.read_bytes() for path in sorted(newest.iterdir())}
    for _ in range(50):
        path, content = draw.choice(list(whole.items()))
        kind = draw.choice(["truncated", "flipped", "flipped", "lost"])
        if kind == "truncated":
            path.write_bytes(content[: draw.randrange(len(content))])
        elif kind == "flipped":
            place, bit = draw.randrange(len(content)), 1 << draw.randrange(8)
            path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
        else:
            path.unlink()
        with pytest.raises(ConfigurationError, match=newest.name):
            verify_checkpoint(newest)
        with pytest.raises(ConfigurationError, match=newest.name):
            load_checkpoint(newest)
        found = newest_checkpoint(tmp_path / "checkpoints")
        assert found.folder == before
        assert list(found.damaged) == [newest]
        path.write_bytes(content)
    assert newest_checkpoint(tmp_path / "checkpoints").folder == newest


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"format_version": 2, "sha256": "0", "network": {"towers": "many"}}',
        b'{"format_version": 2, "sha256": "0", "network": []}',
        b"[" * 100_000,
        b'{"format_version": 1, "sha256": "0"}',
        b'{"format_version": 2, "network": {"towers": 2}, "sha256": "0"}',
        b'{"format_version": 2, "network": {"towers": 2}, "seed": NaN, "sha256": "0"}',
    ],
)
def test_a_description_that_nobody_wrote_is_no_checkpoint(content, tmp_path):
    folder = save(tmp_path / "one")
    (folder / "checkpoint.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match="one"):
        load_checkpoint(folder)


def test_a_description_that_says_the_same_in_other_bytes_is_damaged(tmp_path):
    path = save(tmp_path / "one") / "checkpoint.json"
    path.write_text(path.read_text().replace("\n", "\n ", 1))
    with pytest.raises(ConfigurationError, match="is damaged"):
        load_checkpoint(path.parent)


@pytest.mark.parametrize("name", ["checkpoint.json", "tower-1.safetensors"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(name, tmp_path):
    folder = save(tmp_path / "one")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        load_checkpoint(folder)


def test_a_file_of_another_checkpoint_does_not_pass(tmp_path):
    before, newest = two_checkpoints(tmp_path / "checkpoints")
    other = save(tmp_path / "other", {name: tensor + 1 for name, tensor in weights().items()})
    shutil.copy(other / "tower-1.safetensors", newest / "tower-1.safetensors")
    assert newest_checkpoint(tmp_path / "checkpoints").folder == before


def test_the_newest_and_the_best_are_kept(tmp_path):
    for step in (1, 2, 3, 4, 5):
        save(tmp_path / f"step-{step:09d}")
    prune(tmp_path, keep=2, best="step-000000002")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{step:09d}" for step in (2, 4, 5)]


def test_what_a_killed_run_was_writing_is_removed(tmp_path):
    for step in (1, 2):
        (tmp_path / f".step-{step:09d}.partial").mkdir()
    save(tmp_path / "step-000000003")
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000003"]


def test_a_disk_that_is_full_leaves_the_checkpoint_before_and_nothing_else(tmp_path, monkeypatch):
    before = save(tmp_path / "step-000000001")

    def full(_tensors, path, _metadata):
        Path(path).write_bytes(b"half of it")
        raise SafetensorError("I/O error: No space left on device (os error 28)")  # so it says it

    monkeypatch.setattr(checkpoint_files, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path / "step-000000002")
    assert list(tmp_path.iterdir()) == [before]
    assert newest_checkpoint(tmp_path).folder == before


class PowerCut(BaseException):
    """Nothing of the process happens after it."""


def save_until_the_power_is_cut(folder: Path, calls: int) -> bool:
    """Save, and stop before the n-th call that changes what a disk has; False where there are no more so many."""
    left = [calls]

    def counted(function):
        def call(*arguments, **settings):
            if left[0] == 0:
                raise PowerCut
            left[0] -= 1
            return function(*arguments, **settings)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (os, "fsync"),
            (Path, "replace"),
            (Path, "unlink"),
            (Path, "mkdir"),
            (checkpoint_files, "save_file"),
        ):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        try:
            save(folder, description={"seed": 1})
        except PowerCut:
            return True
    return False


def test_wherever_the_power_is_cut_there_is_a_whole_checkpoint_and_none_that_is_damaged(tmp_path):
    before = save(tmp_path / "step-000000001")
    after, calls, newest = tmp_path / "step-000000002", 0, []
    while save_until_the_power_is_cut(after, calls):
        found = newest_checkpoint(tmp_path)
        assert not found.damaged
        newest.append(found.folder)
        remove_unfinished(tmp_path)
        shutil.rmtree(after, ignore_errors=True)
        calls += 1
    assert calls > 10
    assert set(newest[:-1]) == {before}, "only the call after the folder has its name may find it"
    assert newest[-1] == after


@pytest.fixture
def writer(tmp_path):
    """One that holds both towers, and an event without which its disk does not go on."""
    disk = threading.Event()
    written = checkpoint_files.save_file

    def slow(*arguments):
        assert disk.wait(20)
        written(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_files, "save_file", slow)
        yield CheckpointWriter(tmp_path, narrow_network(), timeout_seconds=10), disk
        disk.set()


def test_what_is_written_is_what_the_tensors_were_and_not_what_they_become(writer, tmp_path):
    at_work, disk = writer
    state = {name: tensor.clone() for name, tensor in weights().items()}
    at_work.start("one", state, momentum(), {})
    for tensor in state.values():
        tensor.zero_()
    assert at_work.is_busy
    assert at_work.outcome() is None, "the disk has not gone on, and nobody waited for it"
    disk.set()
    assert at_work.outcome(wait=True).problem == ""
    found, _ = load_checkpoint(tmp_path / "one")
    assert all(torch.equal(tensor, weights()[name]) for name, tensor in found.items())


def test_an_outcome_is_told_once(writer, tmp_path):
    at_work, disk = writer
    disk.set()
    for name in ("one", "two"):
        at_work.start(name, weights(), momentum(), {})
        assert at_work.outcome(wait=True).name == name
        assert at_work.outcome() is None
        assert not at_work.is_busy
    assert load_momentum(tmp_path / "two", [0, 1]).keys() == weights().keys()


def test_what_fails_in_the_thread_is_an_outcome_and_no_end(writer, monkeypatch):
    at_work, disk = writer
    disk.set()

    def read_only(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(checkpoint_files, "save_file", read_only)
    at_work.start("one", weights(), {}, {})
    assert "Read-only file system" in at_work.outcome(wait=True).problem
