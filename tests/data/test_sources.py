"""Every layout in which ImageNet circulates gives the pack that class folders of the same pictures give."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from alexnet_mp import ConfigurationError
from alexnet_mp.commands.prepare import pack_summary_text
from alexnet_mp.data.load import DataSettings, digits, load_data
from alexnet_mp.data.pack import open_pack
from alexnet_mp.data.prepare.prepare import prepare
from alexnet_mp.data.prepare.settings import PreparationSettings
from alexnet_mp.data.prepare.sources.devkit import ARCHIVES, find_devkit
from alexnet_mp.data.prepare.sources.known import SOURCES
from alexnet_mp.data.prepare.tree import open_tree
from tests.data.test_archives import assert_the_same_pack
from tests.support.photographs import FOLDER
from tests.support.preparation import prepared
from tests.support.sources import KEYS, LAYOUTS, Content, class_folders, hugging_face, kaggle, plan, png, write


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_gives_the_same_pack_as_class_folders(layout: str, tmp_path: Path) -> None:
    kind, content, names, splits = LAYOUTS[layout]
    source = write(tmp_path / "source", content)
    write(tmp_path / "folders", class_folders(names, splits))
    told: list[str] = []
    settings = PreparationSettings(source=str(source), out=str(tmp_path / "pack"), size=8, workers=1)
    summary = prepare(settings, told.append)
    prepared(tmp_path / "folders", tmp_path / "expected", size=8)
    assert_the_same_pack(tmp_path / "pack", tmp_path / "expected")
    assert (summary.manifest.settings["kind"], summary.manifest.skipped) == (kind, ())
    assert f"is of kind {kind}: pictures of 2 classes, train 6, validation 3" in told[0]
    assert not list(tmp_path.glob("pack/.preparation"))


def test_every_source_has_a_layout_here() -> None:
    assert {kind for kind, *_ in LAYOUTS.values()} | {"cifar10"} == {source.kind for source in SOURCES}


@pytest.mark.parametrize("layout", ["ilsvrc2012", "kaggle", "flat_beside_the_devkit", "tiny_imagenet"])
def test_classes_are_named_for_people(layout: str, tmp_path: Path) -> None:
    prepared(write(tmp_path / "source", LAYOUTS[layout][1]), tmp_path / "pack", size=8)
    assert open_pack(tmp_path / "pack").class_names == KEYS
    data = load_data(DataSettings("pack", str(tmp_path / "pack")), (3, 8, 8), 2)
    assert data.names_for_people == ("tench", "goldfish")


def test_classes_of_one_word_are_told_apart() -> None:
    names = ("n02012849", "n03126707", "n01440764", "mine")
    words = {"n02012849": "crane", "n03126707": "crane", "n01440764": "tench, Tinca tinca"}
    data = replace(digits((1, 8, 8)), class_names=names, class_words=words)
    assert data.names_for_people == ("crane (n02012849)", "crane (n03126707)", "tench", "mine")


def test_the_real_devkit_labels_fifty_thousand_pictures(tmp_path: Path) -> None:
    if not (FOLDER / ARCHIVES[2012]).exists():
        pytest.skip("the devkit is not beside this checkout")
    (tmp_path / ARCHIVES[2012]).symlink_to(FOLDER / ARCHIVES[2012])
    devkit = find_devkit(open_tree(tmp_path, tmp_path), tmp_path)
    assert devkit is not None and len(devkit.wnids) == 1860
    classes = sorted(devkit.wnids[i] for i in range(1, 1001))
    labels = devkit.classes_of("validation", devkit.truth, classes)
    assert len(labels) == 50_000
    # The first pictures of ILSVRC-2012's validation set, as Caffe's val.txt has them: 65, 970, 230, 809, 516.
    first = [classes.index(labels[f"ILSVRC2012_val_{i:08d}"]) for i in range(1, 6)]
    assert first == [65, 970, 230, 809, 516]
    assert devkit.words["n01440764"] == "tench, Tinca tinca"


def test_side_files_are_passed_over(tmp_path: Path) -> None:
    content = class_folders()
    expected = write(tmp_path / "clean", content)
    for side in ("@eaDir/a.jpg", "__MACOSX/._a.jpg", "Thumbs.db", ".DS_Store", "._a.jpg", "desktop.ini"):
        content |= {side: b"x", f"train/{KEYS[0]}/{side}": b"x"}
    for form in ("folder", "zip", "tar"):
        archive = "" if form == "folder" else f"photos.{form}//"
        source = write(tmp_path / form, {archive + name: data for name, data in content.items()})
        assert prepared(source, tmp_path / f"{form}_pack", size=8).manifest.skipped == ()
    prepared(expected, tmp_path / "expected", size=8)
    assert_the_same_pack(tmp_path / "folder_pack", tmp_path / "expected")
    assert_the_same_pack(tmp_path / "zip_pack", tmp_path / "expected")
    assert_the_same_pack(tmp_path / "tar_pack", tmp_path / "expected")


def test_what_is_not_understood_is_shown_beside_what_was_expected(tmp_path: Path) -> None:
    source = write(
        tmp_path / "odd", {"pictures/a/1.jpg": b"", "pictures/a/2.jpg": b"", "docs/readme.md": b"", "x": b""}
    )
    with pytest.raises(ConfigurationError) as caught:
        prepared(source, tmp_path / "pack")
    message = str(caught.value)
    assert (
        "Seen: pictures/a/ 2, docs/ 1, ./ 1; for example docs/readme.md, pictures/a/1.jpg, pictures/a/2.jpg" in message
    )
    assert all(each.expected in message for each in SOURCES) and "\n" not in message


def test_a_split_takes_its_part_of_every_class_by_the_seed(tmp_path: Path) -> None:
    source = write(tmp_path / "photos", {f"train/{c}/{i}.png": png(i + 100 * c) for c in range(2) for i in range(10)})
    for out, seed in (("one", 0), ("again", 0), ("other", 1)):
        prepared(source, tmp_path / out, size=8, split=0.2, seed=seed)
        splits = open_pack(tmp_path / out).splits
        assert {name: np.bincount(s.labels).tolist() for name, s in splits.items()} == {
            "train": [8, 8],
            "validation": [2, 2],
        }
    assert_the_same_pack(tmp_path / "one", tmp_path / "again")
    shards = [(tmp_path / out / "mean_image.npy").read_bytes() for out in ("one", "other")]
    assert shards[0] != shards[1]


def test_a_split_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "photos", class_folders())
    with pytest.raises(ConfigurationError, match=r"split=0\.1 makes a validation split, and the source has one"):
        prepared(source, tmp_path / "pack", size=8, split=0.1)
    source = write(tmp_path / "few", class_folders(splits=("train",)))
    with pytest.raises(ConfigurationError, match=r"split=0\.1 leaves no picture to validate on"):
        prepared(source, tmp_path / "pack", size=8, split=0.1)


def test_pictures_in_two_splits_or_under_two_labels_are_named(tmp_path: Path) -> None:
    content = class_folders()
    content[f"val/{KEYS[0]}/leaked.JPEG"] = content[f"train/{KEYS[0]}/{KEYS[0]}_1.JPEG"]
    content[f"train/{KEYS[1]}/twice.JPEG"] = content[f"train/{KEYS[0]}/{KEYS[0]}_3.JPEG"]
    content[f"train/{KEYS[0]}/harmless.JPEG"] = content[f"train/{KEYS[0]}/{KEYS[0]}_5.JPEG"]
    content[f"train/{KEYS[0]}/empty.JPEG"] = content[f"val/{KEYS[0]}/empty.JPEG"] = b""
    source = write(tmp_path / "photos", content)
    settings = PreparationSettings(
        source=str(source), out=str(tmp_path / "pack"), size=8, workers=1, images_per_shard=2
    )
    summary = prepare(settings)
    first, second = summary.manifest.repeated
    assert first.names == ("train/n00000001/n00000001_1.JPEG", "val/n00000001/leaked.JPEG")
    assert second.names == ("train/n00000001/n00000001_3.JPEG", "train/n00000002/twice.JPEG")
    assert (first.why, second.why) == ("in two splits", "under two labels")
    text = pack_summary_text(settings, summary)
    assert "the same bytes in two splits or under two labels, 2 times:" in text and "leaked.JPEG: in two splits" in text


def test_a_class_whose_training_pictures_are_all_damaged_is_refused(tmp_path: Path) -> None:
    content = class_folders()
    content |= {f"train/{KEYS[1]}/{KEYS[1]}_{i}.JPEG": b"" for i in (2, 4, 6)}
    with pytest.raises(
        ConfigurationError, match=r"no training picture of class n00000002 can .*_2\.JPEG: an empty file"
    ):
        prepared(write(tmp_path / "photos", content), tmp_path / "pack", size=8)
    assert not (tmp_path / "pack/manifest.json").exists()


def test_an_inflated_tar_leaves_no_trace(tmp_path: Path) -> None:
    source = write(tmp_path / "source", hugging_face(".tar.gz"))
    (source / "data/train_images_0.tar.gz").rename(tmp_path / "aside")
    with pytest.raises(ConfigurationError, match="of n00000002, a class that train does not have"):
        prepared(source, tmp_path / "pack", size=8)
    assert not (tmp_path / "pack").exists()
    (tmp_path / "aside").rename(source / "data/train_images_0.tar.gz")
    prepared(source, tmp_path / "pack", size=8)
    assert sorted(path.name for path in (tmp_path / "pack").iterdir()) == [
        "manifest.json",
        "mean_image.npy",
        "train",
        "validation",
    ]


def test_avif_is_read(tmp_path: Path) -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    written = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 10, 10)).save(written, "AVIF")
    source = write(tmp_path / "photos", {"train/red/1.avif": written.getvalue()})
    assert prepared(source, tmp_path / "pack", size=8).manifest.skipped == ()


def test_a_stored_zip_is_read_as_a_deflated_one(tmp_path: Path) -> None:
    for name, kind in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w", kind) as file:
            for member, data in class_folders().items():
                file.writestr(member, data)
        prepared(tmp_path / f"{name}.zip", tmp_path / name, size=8)
    assert_the_same_pack(tmp_path / "stored", tmp_path / "deflated")


def test_a_sorted_tiny_imagenet_and_one_class_in_test(tmp_path: Path) -> None:
    content: Content = {**class_folders(), "wnids.txt": b"n00000001\n", "test/images/test_0.JPEG": plan("test")[0][2]}
    source = write(tmp_path / "tiny", content)
    told: list[str] = []
    prepare(PreparationSettings(source=str(source), out=str(tmp_path / "pack"), size=8, workers=1), told.append)
    assert "left out: test (nothing labels the 1 files of test/images/" in told[0]
    assert {name: len(s) for name, s in open_pack(tmp_path / "pack").splits.items()} == {"train": 6, "validation": 3}


def test_unlabeled_pictures_do_not_block(tmp_path: Path) -> None:
    source = write(tmp_path / "source", {n: d for n, d in kaggle().items() if n != "LOC_val_solution.csv"})
    told: list[str] = []
    settings = PreparationSettings(source=str(source), out=str(tmp_path / "pack"), size=8, workers=1)
    manifest = prepare(settings, told.append).manifest
    assert "left out: validation (nothing labels the 3 files of ILSVRC/Data/CLS-LOC/val/)" in told[0]
    assert "split=0.1 keeps a tenth" in told[0]
    assert len(manifest.settings["left_out"]) == 2
