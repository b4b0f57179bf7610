"""A layout with a part missing, doubled, mislabelled or cut short ends in one line that names that part."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet_mp import ConfigurationError
from alexnet_mp.commands.prepare import pack_summary_text
from alexnet_mp.data.prepare.prepare import prepare
from alexnet_mp.data.prepare.settings import PreparationSettings
from tests.support.sources import KEYS, LAYOUTS, Content, class_folders, files_of, png, write

Change = Callable[[Content], object]
ONE, TWO = KEYS
TINY, KAGGLE = "tiny-imagenet-200", "ILSVRC/Data/CLS-LOC"
TRAIN_2012, VAL_2012 = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
KIT_2012 = "ILSVRC2012_devkit_t12.tar.gz//ILSVRC2012_devkit_t12/data"
KIT_2010 = "ILSVRC2010_devkit-1.0.tar.gz//devkit-1.0/data"
TEST_2010 = "ILSVRC2010_images_test.tar"
TEST_TRUTH = "ILSVRC2010_test_ground_truth.txt"


def without(*parts: str) -> Change:
    """Leave out everything whose name has one of the parts."""

    def change(content: Content) -> None:
        for name in [name for name in content if any(part in name for part in parts)]:
            del content[name]

    return change


def put(name: str, data: bytes = b"x") -> Change:
    return lambda content: content.update({name: data})


def move(name: str, to: str) -> Change:
    return lambda content: content.update({to: content.pop(name)})


def copy(name: str, to: str) -> Change:
    return lambda content: content.update({to: content[name]})


def replace(name: str, old: bytes, new: bytes) -> Change:
    return lambda content: content.update({name: content[name].replace(old, new)})


def outcome(source: Path, out: Path) -> list[str]:
    """The line of the refusal, or all lines that a preparation shows."""
    told: list[str] = []
    settings = PreparationSettings(source=str(source), out=str(out), size=4, workers=1)
    try:
        summary = prepare(settings, told.append)
    except ConfigurationError as error:
        return [str(error)]
    return "\n".join([*told, pack_summary_text(settings, summary)]).split("\n")


def assert_one_line_names(part: str, lines: list[str]) -> None:
    assert sum(part in line for line in lines) == 1, lines
    assert not any("\n" in line for line in lines)


VAL_1, VAL_3 = "ILSVRC2012_val_00000001", "ILSVRC2012_val_00000003"
DAMAGE: dict[str, list[tuple[Change, str]]] = {
    "ilsvrc2012": [
        (without(TRAIN_2012), f"has no file {TRAIN_2012}"),
        (without(VAL_2012), f"left out: validation ({VAL_2012} is not there)"),
        (
            without("devkit"),
            f"left out: validation ({VAL_2012} has no labels, since ILSVRC2012_devkit_t12.tar.gz is not",
        ),
        (without(f"{VAL_3}.JPEG"), f"has labels for pictures that are missing: {VAL_3}"),
        (without("meta.mat"), "is not ILSVRC-2012's devkit: it has no meta.mat"),
        (without("ground_truth"), "it has no ILSVRC2012_validation_ground_truth.txt"),
        (copy(f"{VAL_2012}//{VAL_1}.JPEG", f"{VAL_2012}//again/{VAL_1}.JPEG"), f"again/{VAL_1}.JPEG is there twice"),
        (put(f"{VAL_2012}//ILSVRC2012_val_00000004.JPEG"), "has no label for ILSVRC2012_val_00000004.JPEG"),
        (replace(f"{KIT_2012}/ILSVRC2012_validation_ground_truth.txt", b"2", b"3"), "label 2 of validation is '3'"),
        (put(f"{TRAIN_2012}//{ONE}.tar//{ONE}_9.JPEG", b""), f"train/{ONE}/{ONE}_9.JPEG: an empty file"),
        (put(f"{TRAIN_2012}//notes.txt"), "'notes.txt' is not the one tar of a class"),
    ],
    "ilsvrc2010": [
        (without("images_train"), "has no file ILSVRC2010_images_train.tar"),
        (without("images_val"), "left out: validation (ILSVRC2010_images_val.tar is not there)"),
        (without(TEST_2010), f"left out: test ({TEST_2010} is not there)"),
        (without(TEST_TRUTH), f"left out: test ({TEST_2010} has no labels, since {TEST_TRUTH} is not there)"),
        (
            without("patch_images"),
            "ILSVRC2010_val_00000001.JPEG: not an image",
        ),
        (without("test_00000002"), "are missing: ILSVRC2010_test_00000002"),
        (replace(TEST_TRUTH, b"1", b"9"), "label 2 of test is '9'"),
        (put(TEST_TRUTH, b"2\n1\n2\n"), "are missing: ILSVRC2010_test_00000003"),
        (
            put("patch_images.tar//patch_images/val/x.JPEG"),
            "patch_images/val/x.JPEG of patch_images.tar (it replaces no",
        ),
        (
            put("patch_images.tar//more/val/ILSVRC2010_val_00000001.JPEG"),
            "there are two patches val/ILSVRC2010_val_00000001.JPEG",
        ),
        (put(f"{KIT_2010}/meta.mat", b"MATLAB 5.0" * 30), "cannot read meta.mat"),
    ],
    "kaggle": [
        (without("/train/"), "has no folder train"),
        (without("LOC_val_solution"), f"left out: validation (nothing labels the 3 files of {KAGGLE}/val/)"),
        (without(f"{VAL_3}.JPEG"), f"LOC_val_solution.csv has labels for pictures that are missing: {VAL_3}"),
        (
            put(f"{KAGGLE}/val/ILSVRC2012_val_00000004.JPEG"),
            f"has no label for {KAGGLE}/val/ILSVRC2012_val_00000004.JPEG",
        ),
        (replace("LOC_val_solution.csv", ONE.encode(), b"n00000009"), "an unknown class, 'n00000009'"),
        (
            replace("LOC_val_solution.csv", VAL_3.encode(), VAL_1.encode()),
            f"has no label for {KAGGLE}/val/{VAL_3}.JPEG",
        ),
        (
            replace("LOC_val_solution.csv", b"val_00000002", b"val_00000001"),
            "LOC_val_solution.csv gives ILSVRC2012_val_00000001 two classes",
        ),
        (copy(f"{KAGGLE}/val/{VAL_1}.JPEG", f"{KAGGLE}/val/again/{VAL_1}.JPEG"), f"again/{VAL_1}.JPEG is there twice"),
        (put("LOC_val_solution.csv", b"\xff\xfe\x00" * 9), "LOC_val_solution.csv: line 1 is not a name and a class"),
    ],
    "flat_beside_a_list": [
        (without("val.txt"), "left out: validation (nothing labels the 3 files of val/)"),
        (put("val.txt", b""), f"val.txt has no label for val/{VAL_1}.JPEG"),
        (put("val.txt", b"onlyaname\n"), "val.txt: line 1 is not a name and a class: 'onlyaname'"),
        (put("val/notes.md"), "val/notes.md: not a picture that val.txt has"),
        (replace("val.txt", ONE.encode(), b"7"), "an unknown class, '7'"),
    ],
    "tiny_imagenet": [
        (without(f"train/{ONE}/images"), f"class {ONE} has no files; every class needs pictures to train on"),
        (without("val_annotations"), "left out: validation (nothing labels the 3 files of val/images/)"),
        (without("val_3.JPEG"), "val_annotations.txt has labels for pictures that are missing: val_3"),
        (put(f"{TINY}/val/images/val_9.JPEG"), "val_annotations.txt has no label for val/images/val_9.JPEG"),
        (
            replace(f"{TINY}/val/val_annotations.txt", TWO.encode(), b"n9"),
            "gives val/images/val_1.JPEG an unknown class, 'n9'",
        ),
        (without("/val/"), "it has no pictures to validate on"),
        (put(f"{TINY}/train/{ONE}/images/x.JPEG", png(1)[:60]), f"train/{ONE}/images/x.JPEG: damaged"),
    ],
    "hugging_face_tar": [
        (without("train_images"), "(hugging_face) has no pictures of any class to train on"),
        (
            move(f"data/train_images_0.tar//{TWO}_2_{TWO}.JPEG", f"data/train_images_0.tar//{TWO}_2_{ONE}.JPEG"),
            "names two classes",
        ),
        (put("data/val_images.tar//x.JPEG"), "'x.JPEG' does not end with a wnid"),
        (
            put("data/val_images.tar//x_n00000009.JPEG"),
            "validation/x_n00000009.JPEG of n00000009, a class that train does not",
        ),
        (put(f"data/more.tar//x_{ONE}.JPEG"), "more.tar: its name does not say whether it is of train"),
        (
            copy(f"data/train_images_1.tar//{ONE}_1_{ONE}.JPEG", f"data/train_images_0.tar//{ONE}_1_{ONE}.JPEG"),
            f"pictures twice under one name: train/{ONE}_1_{ONE}.JPEG",
        ),
        (without(), "left out: test_images.tar (its pictures have no labels)"),
        (put(f"data/train_images_0.tar//{ONE}_8_{ONE}.JPEG", b""), f"train/{ONE}_8_{ONE}.JPEG: an empty file"),
    ],
    "webdataset_cls": [
        (without(f"{ONE}_1.jpg"), f"the sample '{ONE}_1' has no picture"),
        (without(f"{ONE}_1.cls"), f"the sample '{ONE}_1' has no label"),
        (without("imagenet1k-train"), "(webdataset) has no pictures of any class to train on"),
        (
            put(f"imagenet1k-train-0001.tar//{ONE}_1.cls", b"1"),
            f"a training picture of {ONE} is labeled",
        ),
        (put(f"imagenet1k-train-0001.tar//{ONE}_1.cls", b"cat dog"), "does not say one class: 'cat dog'"),
        (put(f"imagenet1k-train-0001.tar//{ONE}_1.png", png(3)), f"'{ONE}_1.png' is the second picture of its sample"),
        (put("imagenet1k-validation-0001.tar//x.cls", b"7"), "the sample 'x' has no picture"),
        (put("imagenet1k-shard-0001.tar//x.cls", b"7"), "its name does not say whether it is of train"),
        (
            without("validation-0000.tar//ILSVRC2012_val_00000002.cls"),
            "left out: imagenet1k-validation-0000.tar (its pictures have no labels",
        ),
    ],
    "webdataset_json": [
        (put(f"imagenet1k-train-0001.tar//{ONE}_1.json", b"{"), f"'{ONE}_1.json' is not JSON"),
        (put(f"imagenet1k-train-0001.tar//{ONE}_1.json", b"[]"), f"'{ONE}_1.json' does not say one class"),
    ],
    "zip": [
        (without("photos.zip//train/"), "has no folder train"),
        (without(f"train/{ONE}"), f"of {ONE}, a class that train does not have"),
        (put("photos.zip//../x"), "'../x' has a name that leads out of the archive; refused"),
        (put(f"photos.zip//val/{ONE}/x.JPEG", b"x"), f"val/{ONE}/x.JPEG: not an image"),
        (put("photos.zip//val/x.JPEG", png(2)), "val/x.JPEG: not in the folder of a class"),
        (put(f"photos.zip//validation/{ONE}/x.JPEG", png(2)), "has both validation/ and val/"),
    ],
}
CASES = [(layout, change, part) for layout, changes in DAMAGE.items() for change, part in changes]


@pytest.mark.parametrize("layout, change, part", CASES, ids=[f"{layout}-{part[:40]}" for layout, _, part in CASES])
def test_damage_ends_in_one_line_that_names_it(layout: str, change: Change, part: str, tmp_path: Path) -> None:
    content = dict(LAYOUTS[layout][1])
    change(content)
    assert_one_line_names(part, outcome(write(tmp_path / "source", content), tmp_path / "pack"))


CUT = {
    "ilsvrc2012": [TRAIN_2012, VAL_2012, "ILSVRC2012_devkit_t12.tar.gz"],
    "ilsvrc2010": ["patch_images.tar", TEST_2010, "ILSVRC2010_devkit-1.0.tar.gz"],
    "hugging_face_tar": ["data/train_images_1.tar", "data/val_images.tar"],
    "hugging_face_tar_gz": ["data/train_images_1.tar.gz", "data/val_images.tar.gz"],
    "webdataset_cls": ["imagenet1k-train-0000.tar"],
    "kaggle_zip": ["imagenet-object-localization-challenge.zip"],
    "imagenette_tgz": ["imagenette2.tgz"],
    "tar": ["photos.tar"],
}


@pytest.mark.parametrize("layout, file", [(layout, file) for layout, files in CUT.items() for file in files])
def test_an_archive_that_is_cut_short_is_named(layout: str, file: str, tmp_path: Path) -> None:
    write(tmp_path / "source", LAYOUTS[layout][1])
    path = tmp_path / "source" / file
    # A tar has zeros at its end, so it is cut in its first members.
    path.write_bytes(path.read_bytes()[: 1100 if file.endswith(".tar") else path.stat().st_size * 2 // 5])
    lines = outcome(path if len(files_of(LAYOUTS[layout][1])) == 1 else tmp_path / "source", tmp_path / "pack")
    assert len(lines) == 1 and path.name in lines[0] and "cut short" in lines[0], lines
    assert not (tmp_path / "pack").exists()


def zip_with(change: Callable[[zipfile.ZipInfo], object], data: bytes = b"x") -> Callable[[zipfile.ZipFile], None]:
    def add(file: zipfile.ZipFile) -> None:
        member = zipfile.ZipInfo(f"train/{ONE}/evil.JPEG")
        change(member)
        file.writestr(member, data)

    return add


def claim(size: int) -> Callable[[zipfile.ZipFile], None]:
    def add(file: zipfile.ZipFile) -> None:
        zip_with(lambda member: setattr(member, "compress_type", zipfile.ZIP_DEFLATED), bytes(1000))(file)
        file.infolist()[-1].file_size = size

    return add


HOSTILE_ZIPS: dict[str, tuple[Callable[[zipfile.ZipFile], None], str]] = {
    "link": (zip_with(lambda m: setattr(m, "external_attr", 0o120777 << 16)), "is a link, not a file; refused"),
    "bomb": (claim(1 << 32), "evil.JPEG' has 4,294,967,296 bytes; refused"),
    "false_size": (claim(999), "evil.JPEG: damaged: it does not inflate to 999 bytes"),
    "bzip2": (zip_with(lambda m: setattr(m, "compress_type", zipfile.ZIP_BZIP2)), "is encrypted, or not deflated"),
    "absolute": (zip_with(lambda m: setattr(m, "filename", "/etc/x")), "'/etc/x' has a name that leads out"),
    "doubled": (
        lambda file: [file.writestr(f"train/{ONE}/d.JPEG", b"x") for _ in range(2)] and None,
        "d.JPEG' is there twice",
    ),
}


@pytest.mark.parametrize("add, part", HOSTILE_ZIPS.values(), ids=HOSTILE_ZIPS)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_member_of_a_zip_is_refused_or_skipped(
    add: Callable[[zipfile.ZipFile], None], part: str, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in class_folders().items():
            file.writestr(name, data)
        add(file)
    assert_one_line_names(part, outcome(tmp_path / "photos.zip", tmp_path / "pack"))


def test_a_bomb_in_a_tar_gz_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"photos.tar.gz//train/a/1.bmp": bytes(1 << 23)})
    assert_one_line_names("photos.tar.gz holds more than", outcome(source, tmp_path / "pack"))
