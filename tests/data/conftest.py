"""Fixtures: a small pack; and for preparing one, pictures, a folder for it, and the shards that are made."""

from pathlib import Path

import pytest

from alexnet_mp.data.prepare import shards
from alexnet_mp.data.prepare.shards import ShardResult, ShardTask, make_shard
from tests.support.packs import write_pack
from tests.support.preparation import COUNTS, noise


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Small random pictures of two classes, three splits."""
    for split, count in COUNTS.items():
        for i in range(count):
            path = tmp_path / "photos" / split / ("cat", "dog")[i % 2] / f"{i:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise(100 * len(split) + i).save(path)
    return tmp_path / "photos"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "pack"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shards that are made from now on."""
    names: list[str] = []

    def note(task: ShardTask) -> ShardResult:
        names.append(f"{task.split}/{task.file.name}")
        return make_shard(task)

    monkeypatch.setattr(shards, "make_shard", note)
    return names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pack(tmp_path)
    return tmp_path
