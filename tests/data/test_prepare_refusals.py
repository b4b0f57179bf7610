"""What cannot become a pack is refused in one line, and no file is written over."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from alexnet_mp import ConfigurationError
from alexnet_mp.commands import prepare as command
from alexnet_mp.common.cli import compose
from alexnet_mp.data.prepare import workspace
from tests.support.preparation import fingerprint, prepared


def test_too_small_a_disk_is_named_before_the_start(
    photos: Path, out: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(workspace.shutil, "disk_usage", lambda _: Usage(20_000))
    with pytest.raises(ConfigurationError, match=r"needs [\d,]+ bytes .* has 20,000") as caught:
        prepared(photos, out, size=16)
    needed = int(re.search(r"needs ([\d,]+) bytes", str(caught.value))[1].replace(",", ""))  # type: ignore[index]
    assert 18 * 16 * 16 * 3 < needed < 100_000
    assert made == []


def test_a_whole_pack_is_never_written_over(photos: Path, out: Path) -> None:
    prepared(photos, out, size=16)
    before = fingerprint(out)
    with pytest.raises(ConfigurationError, match="is a whole pack already"):
        prepared(photos, out, size=8)
    assert fingerprint(out) == before


def test_a_folder_with_other_files_is_never_used(photos: Path, out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigurationError, match="has files that are not a pack's"):
        prepared(photos, out, size=16)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_two_preparations_do_not_share_a_folder(photos: Path, out: Path) -> None:
    with workspace.Workspace(out), pytest.raises(ConfigurationError, match="another process is preparing"):
        prepared(photos, out, size=16)


def test_a_refused_source_leaves_no_trace(photos: Path, out: Path) -> None:
    (photos / "val" / "bird").mkdir()
    (photos / "val" / "bird" / "1.png").touch()
    with pytest.raises(ConfigurationError, match=r"val/bird/1.png of bird, a class that train does not have"):
        prepared(photos, out)
    assert not out.exists()


WRONG_USES: dict[str, tuple[list[str], str]] = {
    "no_such_source": (["source=nowhere"], "source=nowhere does not exist"),
    "another_kind": (["kind=ilsvrc"], "looks like kind=folder, not kind=ilsvrc"),
    "unknown_kind": (["kind=zip"], "kind is 'zip', not one of auto, cifar10, ilsvrc"),
    "size_0": (["size=0"], "size is 0, must be from 1"),
    "size_text": (["size=large"], "size must be a whole number"),
    "workers_0": (["workers=0"], "workers is 0, must be from 1"),
    "shards_of_0": (["images_per_shard=0"], "images_per_shard is 0, must be from 1"),
    "shards_too_large": (["images_per_shard=100000000"], "images_per_shard is 100000000, must be from 1"),
    "no_pixels": (["max_pixels=0"], "max_pixels is 0, must be from 1"),
    "added_key": (["+color=1"], "unknown key 'color'"),
    "out_in_the_source": (["out=photos/train/pack"], "lies in source=photos"),
    "out_below_a_file": (["out=file/pack"], "cannot write out=file/pack"),
}


@pytest.mark.parametrize("overrides, message", WRONG_USES.values(), ids=WRONG_USES)
def test_a_wrong_use_is_one_error_with_the_fix(
    overrides: list[str], message: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    Path("file").touch()
    before = fingerprint(photos)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        command.run(compose("prepare", ["source=photos", "out=pack", "workers=1", *overrides]))
    assert fingerprint(photos) == before
    assert not Path("pack").exists()


FOLDERS: dict[str, tuple[list[str], str]] = {
    "no_train": (["val/cat/1.png"], "has no folder train"),
    "no_classes": (["train/1.png"], "train has no folders; every class needs one"),
    "an_empty_class": (["train/cat/1.png", "train/dog/"], "dog has no files"),
    "val_and_validation": (["train/cat/1.png", "val/cat/1.png", "validation/cat/1.png"], "both validation/ and val/"),
}


@pytest.mark.parametrize("paths, message", FOLDERS.values(), ids=FOLDERS)
def test_a_folder_that_is_not_laid_out_is_refused(paths: list[str], message: str, tmp_path: Path, out: Path) -> None:
    for name in paths:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.touch()
    with pytest.raises(ConfigurationError, match=message):
        prepared(tmp_path / "photos", out)
