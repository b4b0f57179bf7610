"""Photographs become a pack right in every pixel and statistic, whatever the workers; bad ones are named."""

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from alexnet_mp import ConfigurationError
from alexnet_mp.commands import prepare as command
from alexnet_mp.common.cli import compose
from alexnet_mp.data.pack import Pack, PackSplit, open_pack
from alexnet_mp.data.prepare import prepare as prepare_module
from alexnet_mp.data.prepare.prepare import images_per_shard
from tests.support.photographs import class_folders, flat, unpack
from tests.support.preparation import fingerprint, prepared
from tests.support.processes import CHECKOUT, run_command, run_script

Pixels = NDArray[np.uint8]


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
def test_the_pack_of_photographs_is_right_in_every_pixel(size: int, tmp_path: Path) -> None:
    files = class_folders(tmp_path / "photos", of_each_class=5)
    prepared(tmp_path / "photos", tmp_path / "pack", size=size)
    pack = open_pack(tmp_path / "pack")
    assert {name: len(split) for name, split in pack.splits.items()} == {"train": 50, "validation": 50}
    train = [file for file in files if file.parent.parent.name == "train"]
    assert pack.class_names == tuple(sorted({file.parent.name for file in train}))
    assert_holds(pack, "train", train[::5])  # one of each class, ten in all
    assert_holds(pack, "validation", [file for file in files if file not in train][::5])
    assert_statistics_are_numpys(pack)


def test_the_pack_of_photographs_named_as_imagenets_is_right_in_every_pixel(tmp_path: Path) -> None:
    assert_the_pack_is_right(tmp_path, flat(tmp_path / "flat", count=30))


def assert_the_pack_is_right(tmp_path: Path, photographs: list[Path]) -> None:
    files = []
    for path in photographs:
        folder = tmp_path / "photos" / "train" / path.name.split("_")[0]
        folder.mkdir(parents=True)
        files.append(path.rename(folder / path.name))
    prepared(tmp_path / "photos", tmp_path / "pack")
    pack = open_pack(tmp_path / "pack")
    assert len(pack.class_names) == len(files)
    assert_holds(pack, "train", files[:10])
    assert_statistics_are_numpys(pack)


@pytest.mark.slow
def test_the_pack_of_imagenets_own_photographs_is_right_in_every_pixel(tmp_path: Path) -> None:
    unpacked = unpack("imagenet-samples.zip", tmp_path / "flat", lambda names: [n for n in names if "JPEG" in n])
    assert_the_pack_is_right(tmp_path, unpacked)


@pytest.mark.slow
def test_the_pack_of_all_clothing_photographs_is_right(tmp_path: Path) -> None:
    files = unpack("clothing-photos.zip", tmp_path / "photos", lambda names: [n for n in names if n.endswith(".jpg")])
    prepared(tmp_path / "photos", tmp_path / "pack", workers=2)
    pack = open_pack(tmp_path / "pack")
    assert sum(len(split) for split in pack.splits.values()) == len(files) == 3409
    assert_holds(pack, "train", [file for file in files if file.parent.parent.name == "train"][::307])
    images = np.concatenate(
        [np.load(tmp_path / "pack" / s.file, allow_pickle=False) for s in pack.manifest.splits["train"].shards]
    )
    np.testing.assert_array_equal(pack.statistics.mean_image, images.mean(axis=0, dtype=np.float64))


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


def test_a_split_without_one_good_picture_is_named(photos: Path, out: Path) -> None:
    for path in (photos / "test").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"none of the 2 pictures of test.*test/cat/00\.png: an empty file"):
        prepared(photos, out, size=16)


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
