"""A preparation that was stopped, killed or damaged goes on where it was, or says why it does not."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from alexnet_mp import ConfigurationError
from alexnet_mp.data.pack import open_pack
from alexnet_mp.data.prepare import shards
from alexnet_mp.data.prepare.shards import ShardResult, ShardTask, make_shard
from tests.support.preparation import fingerprint, noise, prepared
from tests.support.processes import CHECKOUT, run_command


class Stopped(NamedTuple):
    """A preparation of 8 shards that was stopped, and what the whole pack is."""

    source: Path
    out: Path
    whole: dict[str, str]


@pytest.fixture
def stopped(photos: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stopped]:
    """Stopped after three shards."""
    prepared(photos, tmp_path / "whole", size=16, images_per_shard=3)
    whole = fingerprint(tmp_path / "whole")

    def stop_at_the_fourth(task: ShardTask) -> ShardResult:
        if task.number == 3:
            task.file.write_bytes(b"half a sh")
            raise KeyboardInterrupt
        return make_shard(task)

    with monkeypatch.context() as patched:
        patched.setattr(shards, "make_shard", stop_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            prepared(photos, out, size=16, images_per_shard=3)
    yield Stopped(photos, out, whole)


REST = ["train/00003.npy", "validation/00000.npy", "validation/00001.npy", "test/00000.npy"]


def test_a_half_made_pack_does_not_open(stopped: Stopped) -> None:
    with pytest.raises(ConfigurationError, match=r"manifest\.json does not exist.*has not finished"):
        open_pack(stopped.out)


def test_a_second_start_makes_only_the_missing_shards_and_the_same_pack(stopped: Stopped, made: list[str]) -> None:
    summary = prepared(stopped.source, stopped.out, size=16, images_per_shard=3)
    assert (made, summary.shards_found, summary.images_decoded) == (REST, 3, 9)
    plan = {"manifest.json"}  # its settings name the same source: equal too
    assert fingerprint(stopped.out) == stopped.whole and plan <= stopped.whole.keys()


@pytest.mark.parametrize("damage", ["train-00001.json", "train-00001.npy", "../train/00001.npy"])
@pytest.mark.parametrize("how", ["gone", "cut_short"])
def test_a_finished_shard_that_lost_a_file_is_made_again(
    damage: str, how: str, stopped: Stopped, made: list[str]
) -> None:
    file = stopped.out / ".preparation" / damage
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-9])
    prepared(stopped.source, stopped.out, size=16, images_per_shard=3)
    assert made == ["train/00001.npy", *REST]
    assert fingerprint(stopped.out) == stopped.whole


@pytest.mark.parametrize("change, message", [({"size": 8}, "size 16 -> 8"), ({"seed": 1}, "seed 0 -> 1")])
def test_leftovers_of_other_settings_are_refused_and_kept(
    change: dict[str, int], message: str, stopped: Stopped
) -> None:
    before = fingerprint(stopped.out)
    with pytest.raises(ConfigurationError, match=message):
        prepared(stopped.source, stopped.out, **{"size": 16, "images_per_shard": 3, **change})
    assert fingerprint(stopped.out) == before


def test_leftovers_of_other_pictures_are_refused(stopped: Stopped) -> None:
    noise(99).save(stopped.source / "train" / "cat" / "00.png")
    with pytest.raises(ConfigurationError, match="begun from other pictures"):
        prepared(stopped.source, stopped.out, size=16, images_per_shard=3)


KILLED = """
import os, signal, sys
from pathlib import Path
from alexnet_mp.data.prepare import shards
from alexnet_mp.data.prepare.prepare import prepare
from alexnet_mp.data.prepare.settings import PreparationSettings
make, sidecars = shards.make_shard, Path(sys.argv[2], ".preparation")
def killed(task):
    if task.number == 2:
        while len(list(sidecars.glob("train-*.json"))) < 2:
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    return make(task)
shards.make_shard = killed
prepare(PreparationSettings(sys.argv[1], sys.argv[2], size=16, images_per_shard=3, workers=1))
"""


def test_a_killed_process_leaves_what_the_next_goes_on_from(photos: Path, out: Path, made: list[str]) -> None:
    killed = run_command([sys.executable, "-c", KILLED, str(photos), str(out)], out.parent)
    assert killed.code == -signal.SIGKILL, killed.stderr
    with pytest.raises(ConfigurationError, match="does not exist"):
        open_pack(out)
    summary = prepared(photos, out, size=16, images_per_shard=3)
    assert (summary.shards_found, made) == (2, ["train/00002.npy", *REST])
    assert len(open_pack(out).splits["train"]) == 12


def die(task: ShardTask) -> ShardResult:
    os._exit(1)


def test_a_worker_that_dies_ends_in_one_error(photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "make_shard", die)
    with pytest.raises(ConfigurationError, match=r"a worker process died.*goes on from the finished shards"):
        prepared(photos, out, workers=2, size=16)


def linger(task: ShardTask) -> ShardResult:
    """Say who makes this shard, and never be done."""
    (task.file.parent.parent.parent / f"{os.getpid()}.pid").touch()
    signal.pause()
    raise AssertionError


ORPHANS = """
import os, signal, sys, threading
from pathlib import Path
from alexnet_mp.data.prepare import shards
from alexnet_mp.data.prepare.prepare import prepare
from alexnet_mp.data.prepare.settings import PreparationSettings
from tests.data.test_prepare_again import linger
def kill():
    while len(list(Path(sys.argv[2]).parent.glob("*.pid"))) < 2:
        pass
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=kill).start()
shards.make_shard = linger
prepare(PreparationSettings(sys.argv[1], sys.argv[2], size=16, workers=2))
"""


def test_workers_end_with_a_parent_that_is_killed(photos: Path, out: Path) -> None:
    killed = run_command([sys.executable, "-c", ORPHANS, str(photos), str(out)], CHECKOUT, deadline=60)
    assert killed.code == -signal.SIGKILL, killed.stderr
    pids = [int(path.stem) for path in out.parent.glob("*.pid")]
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, f"{pids} outlived their parent"


def test_strict_does_not_take_over_what_was_skipped_before(stopped: Stopped) -> None:
    sidecar = stopped.out / ".preparation" / "train-00001.json"
    content = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**content, "skipped": [["train/cat/02.png", "an empty file"]]}))
    with pytest.raises(ConfigurationError, match=r"train/cat/02\.png: an empty file"):
        prepared(stopped.source, stopped.out, size=16, images_per_shard=3, strict=True)
