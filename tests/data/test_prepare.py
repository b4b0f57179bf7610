"""Photographs become a pack right in every pixel and statistic, whatever the workers, the starts and the damage."""

import hashlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from alexnet_mp import ConfigurationError
from alexnet_mp.commands import prepare as command
from alexnet_mp.common.cli import compose
from alexnet_mp.data.pack import Pack, PackSplit, open_pack
from alexnet_mp.data.prepare import prepare as prepare_module
from alexnet_mp.data.prepare import shards, workspace
from alexnet_mp.data.prepare.prepare import PackSummary, images_per_shard, prepare
from alexnet_mp.data.prepare.settings import PreparationSettings
from alexnet_mp.data.prepare.shards import ShardResult, ShardTask, make_shard
from tests.support.photographs import clothing, imagenet
from tests.support.processes import CHECKOUT, run_command, run_script

Pixels = NDArray[np.uint8]


def prepared(source: Path, out: Path, workers: int = 1, **settings: Any) -> PackSummary:
    return prepare(PreparationSettings(source=str(source), out=str(out), workers=workers, **settings))


def by_plain_pillow(path: Path, size: int) -> Pixels:
    """The rule written anew: shorter side to `size`, longer rounded, center patch (paper §2)."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    longer = int(max(width, height) * size / min(width, height) + 0.5)
    target = (size, longer) if width < height else (longer, size)
    if target != image.size:
        shrinks = min(width, height) > size
        image = image.resize(target, Image.Resampling.BILINEAR if shrinks else Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image)[top : top + size, left : left + size]


def all_images(split: PackSplit) -> Pixels:
    out = np.empty((len(split), *split.image_shape), dtype=np.uint8)
    split.read(np.arange(len(split)), out)
    return out


def assert_holds(pack: Pack, split: str, files: list[Path]) -> None:
    """Each file is in the split once, pixel for pixel, with its folder's label."""
    images = all_images(pack.splits[split])
    for file in files:
        (rows,) = np.nonzero((images == by_plain_pillow(file, pack.size)).all(axis=(1, 2, 3)))
        assert len(rows) == 1, f"{file} is in the pack {len(rows)} times"
        assert pack.class_names[pack.splits[split].labels[rows[0]]] == file.parent.name


def assert_statistics_are_numpys(pack: Pack) -> None:
    images = all_images(pack.splits["train"]).astype(np.float64)
    np.testing.assert_array_equal(pack.statistics.mean_image, images.mean(axis=0))
    values, vectors = np.linalg.eigh(np.cov(images.reshape(-1, 3).T, bias=True))
    np.testing.assert_allclose(pack.statistics.eigenvalues, values[::-1], rtol=1e-9)
    # The sign of an eigenvector is free; here its largest component is positive.
    cosines = (pack.statistics.eigenvectors * vectors[:, ::-1]).sum(axis=0)
    np.testing.assert_allclose(np.abs(cosines), 1, rtol=1e-9)
    assert (
        np.take_along_axis(
            pack.statistics.eigenvectors, np.abs(pack.statistics.eigenvectors).argmax(axis=0)[None], axis=0
        )
        > 0
    ).all()


@pytest.mark.parametrize("size", [256, 100])
def test_the_pack_of_clothing_photographs_is_right_in_every_pixel(size: int, tmp_path: Path) -> None:
    files = clothing(tmp_path / "photos", of_each_class=5)
    prepared(tmp_path / "photos", tmp_path / "pack", size=size)
    pack = open_pack(tmp_path / "pack")
    assert {name: len(split) for name, split in pack.splits.items()} == {"train": 50, "validation": 50}
    train = [file for file in files if file.parent.parent.name == "train"]
    assert pack.class_names == tuple(sorted({file.parent.name for file in train}))
    assert_holds(pack, "train", train[::5])  # one of each class, ten in all
    assert_holds(pack, "validation", [file for file in files if file not in train][::5])
    assert_statistics_are_numpys(pack)


def test_the_pack_of_imagenet_photographs_is_right_in_every_pixel(tmp_path: Path) -> None:
    files = []
    for path in imagenet(tmp_path / "flat", count=30):
        folder = tmp_path / "photos" / "train" / path.name.split("_")[0]
        folder.mkdir(parents=True)
        files.append(path.rename(folder / path.name))
    prepared(tmp_path / "photos", tmp_path / "pack")
    pack = open_pack(tmp_path / "pack")
    assert len(pack.class_names) == len(files) == 30
    assert_holds(pack, "train", files[:10])  # the grayscale one among them
    assert_statistics_are_numpys(pack)


@pytest.mark.slow
def test_the_pack_of_all_clothing_photographs_is_right(tmp_path: Path) -> None:
    files = clothing(tmp_path / "photos", of_each_class=10_000)
    prepared(tmp_path / "photos", tmp_path / "pack", workers=2)
    pack = open_pack(tmp_path / "pack")
    assert sum(len(split) for split in pack.splits.values()) == len(files) == 3409
    assert_holds(pack, "train", [file for file in files if file.parent.parent.name == "train"][::307])
    images = np.concatenate(
        [np.load(tmp_path / "pack" / s.file, allow_pickle=False) for s in pack.manifest.splits["train"].shards]
    )
    np.testing.assert_array_equal(pack.statistics.mean_image, images.mean(axis=0, dtype=np.float64))


def noise(seed: int, width: int = 24, height: int = 20) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


COUNTS = {"train": 12, "val": 4, "test": 2}


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


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file below a folder, and what is in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_pack_has_shards_labels_mean_and_manifest_and_nothing_else(photos: Path, out: Path) -> None:
    prepared(photos, out, size=16, images_per_shard=5)
    shards = {"train": 3, "validation": 1, "test": 1}
    expected = {f"{split}/{i:05d}.npy" for split, count in shards.items() for i in range(count)}
    expected |= {f"{split}/labels.npy" for split in shards} | {"mean_image.npy", "manifest.json"}
    assert fingerprint(out).keys() == expected
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == sorted(shards)
    shard = np.load(out / "train/00000.npy", allow_pickle=False)
    assert (shard.shape, shard.dtype) == ((5, 16, 16, 3), np.uint8)
    assert {name: len(split) for name, split in open_pack(out).splits.items()} == {
        "train": 12,
        "validation": 4,
        "test": 2,
    }


def test_the_order_is_shuffled_by_the_seed(photos: Path, tmp_path: Path) -> None:
    labels = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        prepared(photos, tmp_path / name, size=8, seed=seed)
        labels[name] = fingerprint(tmp_path / name)["train/00000.npy"]
    assert labels["first"] == labels["again"] != labels["other"]
    assert open_pack(tmp_path / "first").splits["train"].labels.tolist() != [0] * 6 + [1] * 6


def test_two_worker_processes_make_the_same_bytes_as_one(photos: Path, tmp_path: Path) -> None:
    for count in (1, 2):
        prepared(photos, tmp_path / f"{count}", workers=count, size=16, images_per_shard=3)
    assert fingerprint(tmp_path / "1") == fingerprint(tmp_path / "2")


@pytest.mark.parametrize(
    "images, size, each", [(1_281_167, 256, 1302), (3068, 256, 96), (50_000, 32, 1563), (3, 256, 1)]
)
def test_a_shard_has_256_mb_or_a_32nd_of_its_split(images: int, size: int, each: int) -> None:
    assert images_per_shard(images, size) == each


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


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shards that are made from now on."""
    names: list[str] = []

    def note(task: ShardTask) -> ShardResult:
        names.append(f"{task.split}/{task.file.name}")
        return make_shard(task)

    monkeypatch.setattr(shards, "make_shard", note)
    return names


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
from tests.data.test_prepare import linger
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


def test_bad_pictures_are_skipped_counted_and_named(
    photos: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "train/cat/00.png").write_bytes(b"")
    (photos / "train/dog/01.png").write_bytes((photos / "train/dog/01.png").read_bytes()[:100])
    (photos / "val/cat/notes.txt").write_text("not a picture")
    (photos / "val/README").write_text("not in a class")
    (photos / "val/cat/link.png").symlink_to("nowhere")
    (photos / "test/cat/.hidden").write_text("passed over")
    command.run(compose("prepare", [f"source={photos}", f"out={out}", "size=16", "images_per_shard=5", "workers=1"]))
    pack = open_pack(out)
    skipped = {each.name: each.reason for each in pack.manifest.skipped}
    assert skipped.keys() == {
        "train/cat/00.png",
        "train/dog/01.png",
        "val/cat/notes.txt",
        "val/README",
        "val/cat/link.png",
    }
    assert {name: len(split) for name, split in pack.splits.items()} == {"train": 10, "validation": 4, "test": 2}
    assert_statistics_are_numpys(pack)
    printed = capsys.readouterr().out
    assert "skipped 5:" in printed and "10" in printed
    assert all(f"{name}: {reason}" in printed for name, reason in skipped.items())


def test_strict_stops_with_the_name(photos: Path, out: Path) -> None:
    (photos / "train/cat/02.png").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"train/cat/02\.png: an empty file; strict=false"):
        prepared(photos, out, size=16, strict=True)
    assert not (out / "manifest.json").exists()


def test_strict_does_not_take_over_what_was_skipped_before(stopped: Stopped) -> None:
    sidecar = stopped.out / ".preparation" / "train-00001.json"
    content = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**content, "skipped": [["train/cat/02.png", "an empty file"]]}))
    with pytest.raises(ConfigurationError, match=r"train/cat/02\.png: an empty file"):
        prepared(stopped.source, stopped.out, size=16, images_per_shard=3, strict=True)


def test_a_split_without_one_good_picture_is_named(photos: Path, out: Path) -> None:
    for path in (photos / "test").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"none of the 2 pictures of test.*test/cat/00\.png: an empty file"):
        prepared(photos, out, size=16)


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
    with pytest.raises(ConfigurationError, match=r"val/bird is a class that train/ does not have"):
        prepared(photos, out)
    assert not out.exists()


WRONG_USES: dict[str, tuple[list[str], str]] = {
    "no_such_source": (["source=nowhere"], "source=nowhere does not exist"),
    "another_kind": (["kind=ilsvrc"], "looks like kind=folder, not kind=ilsvrc"),
    "unknown_kind": (["kind=zip"], "kind is 'zip', not one of auto, folder, ilsvrc, cifar10"),
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
    "an_empty_split": (["train/cat/1.png", "test/"], "no pictures for the split test"),
}


@pytest.mark.parametrize("paths, message", FOLDERS.values(), ids=FOLDERS)
def test_a_folder_that_is_not_laid_out_is_refused(paths: list[str], message: str, tmp_path: Path, out: Path) -> None:
    for name in paths:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.touch()
    with pytest.raises(ConfigurationError, match=message):
        prepared(tmp_path / "photos", out)


def test_a_name_that_is_no_text_is_written_and_printed(
    photos: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "train/cat/\udcff\udcfe.jpg").write_bytes(b"")
    command.run(compose("prepare", [f"source={photos}", f"out={out}", "size=16", "workers=1"]))
    assert r"train/cat/\udcff\udcfe.jpg: an empty file" in capsys.readouterr().out
    assert open_pack(out).manifest.skipped[0].name == "train/cat/\udcff\udcfe.jpg"


def test_the_command_runs_with_worker_processes_and_says_what_it_made(photos: Path, tmp_path: Path) -> None:
    script = [sys.executable, str(CHECKOUT / "launch" / "prepare.py")]
    finished = run_command([*script, "source=photos", "out=pack", "size=16", "workers=2"], tmp_path)
    assert finished.code == 0, finished.stderr
    assert "18 images of 16x16 in 2 classes (train 12, validation 4, test 2)" in finished.stdout
    assert len(open_pack(tmp_path / "pack").splits["train"]) == 12
    again = run_script("launch/prepare.py", ["source=photos", "out=pack", "size=16"], tmp_path)
    assert (again.code, again.stderr.count("\n")) == (2, 1)
    assert "is a whole pack already" in again.stderr
    assert prepare_module.LEAST_SHARDS == 32
