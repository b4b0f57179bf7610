"""ILSVRC-2012's tar files give the pack that their pictures give in folders, or are refused."""

import io
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from alexnet_mp import ConfigurationError
from alexnet_mp.data.pack import open_pack
from alexnet_mp.data.prepare.tar import index_tar
from tests.support.archives import Content, assert_the_same_pack, prepared, tar_of
from tests.support.photographs import flat

TRAIN, VALIDATION = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"


def meta_mat(ids: dict[str, int]) -> bytes:
    """The devkit's table: a struct array of synsets, the classes and, after them, the groups that they belong to."""
    kinds = [
        ("ILSVRC2012_ID", "O"),
        ("WNID", "O"),
        ("words", "O"),
        ("gloss", "O"),
        ("num_children", "O"),
        ("children", "O"),
        ("wordnet_height", "O"),
        ("num_train_images", "O"),
    ]
    rows = [(float(i), wnid, "a word", "what it means", 0.0, np.zeros((1, 0)), 0.0, 1.0) for wnid, i in ids.items()]
    rows.append((float(len(ids) + 1), "n00001740", "entity", "all", 2.0, np.array([[1.0, 2.0]]), 1.0, 0.0))
    written = io.BytesIO()
    savemat(written, {"synsets": np.array(sorted(rows, key=lambda row: row[0]), dtype=kinds).reshape(-1, 1)})
    return written.getvalue()


def devkit(ids: dict[str, int], truth: list[int]) -> Content:
    folder = "ILSVRC2012_devkit_t12"
    return {
        f"{folder}/readme.txt": b"as in the real one",
        f"{folder}/data/meta.mat": meta_mat(ids),
        f"{folder}/data/ILSVRC2012_validation_ground_truth.txt": "".join(f"{i}\n" for i in truth).encode(),
    }


def write_ilsvrc(folder: Path, train: dict[str, Content], validation: list[tuple[str, bytes]]) -> None:
    """The three files as they are published, for training pictures by wnid and validation pictures with their wnids."""
    folder.mkdir()
    # The real IDs are in no order that the wnids know.
    ids = {wnid: i for i, wnid in enumerate(sorted(train, reverse=True), start=1)}
    shuffled = sorted(train, key=lambda wnid: wnid[::-1])
    (folder / TRAIN).write_bytes(tar_of({f"{wnid}.tar": tar_of(train[wnid]) for wnid in shuffled}))
    pictures = {f"ILSVRC2012_val_{i:08d}.JPEG": data for i, (_, data) in enumerate(validation, start=1)}
    (folder / VALIDATION).write_bytes(tar_of(pictures))
    (folder / DEVKIT).write_bytes(tar_of(devkit(ids, [ids[wnid] for wnid, _ in validation]), "w:gz"))


def write_folders(folder: Path, train: dict[str, Content], validation: list[tuple[str, bytes]]) -> None:
    """The same pictures in class folders."""
    files = {f"train/{wnid}/{name}": data for wnid, content in train.items() for name, data in content.items()}
    for i, (wnid, data) in enumerate(validation, start=1):
        files[f"val/{wnid}/ILSVRC2012_val_{i:08d}.JPEG"] = data
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def test_ilsvrcs_files_give_the_same_pack_as_folders_of_the_same_photographs(tmp_path: Path) -> None:
    files = flat(tmp_path / "flat", count=16)
    train: dict[str, Content] = {}
    for file in files[:12]:
        train[file.name.split("_")[0]] = {f"{file.name.split('_')[0]}_{i}.JPEG": file.read_bytes() for i in (7, 10)}
    wnids = sorted(train)
    validation = [(wnids[(5 * i) % 12], file.read_bytes()) for i, file in enumerate(files[4:])]
    write_ilsvrc(tmp_path / "tars", train, validation)
    write_folders(tmp_path / "folders", train, validation)
    for name in ("tars", "folders"):
        prepared(tmp_path / name, tmp_path / f"{name}_pack", images_per_shard=7)
    assert_the_same_pack(tmp_path / "tars_pack", tmp_path / "folders_pack")
    pack = open_pack(tmp_path / "tars_pack")
    assert pack.class_names == tuple(wnids)
    assert {name: len(split) for name, split in pack.splits.items()} == {"train": 24, "validation": 12}


def png(seed: int, size: int = 8) -> bytes:
    written = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(written, "PNG")
    return written.getvalue()


SMALL_TRAIN = {f"n0000000{c}": {f"n0000000{c}_{i}.JPEG": png(10 * c + i) for i in range(3)} for c in (1, 2)}
SMALL_VALIDATION = [("n00000002", png(90)), ("n00000001", png(91)), ("n00000002", png(92))]


@pytest.fixture
def ilsvrc(tmp_path: Path) -> Path:
    write_ilsvrc(tmp_path / "ilsvrc", SMALL_TRAIN, SMALL_VALIDATION)
    return tmp_path / "ilsvrc"


def test_a_picture_that_is_damaged_inside_a_tar_is_named(tmp_path: Path) -> None:
    train = {**SMALL_TRAIN, "n00000003": {"n00000003_1.JPEG": b"", "n00000003_2.JPEG": png(5)}}
    write_ilsvrc(tmp_path / "ilsvrc", train, SMALL_VALIDATION)
    summary = prepared(tmp_path / "ilsvrc", tmp_path / "pack", size=8)
    (skipped,) = summary.manifest.skipped
    assert (skipped.name, skipped.reason) == ("train/n00000003/n00000003_1.JPEG", "an empty file")


def header(**fields: Any) -> bytes:
    """A member with the given fields of its header, and the data `xyz` if it is a file."""
    member = tarfile.TarInfo(fields.pop("name", "n00000001.tar"))
    member.size = 3
    for name, value in fields.items():
        setattr(member, name, value)
    return member.tobuf(tarfile.GNU_FORMAT) + (b"xyz" + bytes(509) if member.isreg() else b"")


def with_field(content: bytes, start: int, value: bytes) -> bytes:
    """A header with one field replaced, and its checksum right again."""
    changed = bytearray(content)
    changed[start : start + len(value)] = value
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed[:512])
    return bytes(changed)


END = bytes(1024)
pax = partial(tar_of, format=tarfile.PAX_FORMAT)
HOSTILE_TARS: dict[str, tuple[Callable[[], bytes], str]] = {
    "absolute_name": (lambda: tar_of({"/etc/passwd": b"x"}), r"'/etc/passwd' has a name that leads out"),
    "name_with_dots": (lambda: tar_of({"a/../../x": b"x"}), r"'a/\.\./\.\./x' has a name that leads out"),
    "long_name_with_dots": (lambda: tar_of({"../" + "a" * 200: b"x"}, format=tarfile.GNU_FORMAT), "leads out"),
    "pax_name_with_dots": (lambda: pax({"../" + "a" * 200: b"x"}), "leads out"),
    "symbolic_link": (lambda: header(type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0) + END, "is a link"),
    "hard_link": (lambda: header(type=tarfile.LNKTYPE, linkname="x", size=0) + END, "is a link"),
    "character_device": (lambda: header(type=tarfile.CHRTYPE, size=0) + END, "is a device"),
    "block_device": (lambda: header(type=tarfile.BLKTYPE, size=0) + END, "is a device"),
    "fifo": (lambda: header(type=tarfile.FIFOTYPE, size=0) + END, "is a device"),
    "sparse": (lambda: header(type=tarfile.GNUTYPE_SPARSE) + END, "is a device or of another special kind"),
    "unknown_kind": (lambda: header(type=b"Z") + END, "is a device or of another special kind"),
    "no_end": (lambda: header(), "is cut short: it has no end mark"),
    "cut_in_a_header": (lambda: header() + header()[:200], "is cut short"),
    "cut_in_a_member": (lambda: header()[:514], "is cut short: member"),
    "damaged_checksum": (lambda: header() + b"x" + header()[1:] + END, r"damaged at byte [\d,]+"),
    "no_tar": (lambda: b"<html>404 Not Found</html>" * 100, "is not a tar file"),
    "empty": (lambda: b"", "is cut short"),
    "negative_size": (lambda: with_field(header(), 124, b"\xff" * 12) + END, "impossible size"),
    "enormous_size": (lambda: header(size=1 << 60) + END, "is cut short: member"),
    "enormous_extension": (lambda: header(type=tarfile.XHDTYPE, size=1 << 40) + END, "impossible size"),
    "pax_damaged": (lambda: header(type=tarfile.XHDTYPE, size=3) + b"xyz" + bytes(509) + END, "damaged extended"),
    "pax_for_all": (
        lambda: header(type=tarfile.XGLTYPE, size=9) + b"9 path=a\n" + bytes(503) + header() + END,
        "one name or size for all",
    ),
}


@pytest.mark.parametrize("content, message", HOSTILE_TARS.values(), ids=HOSTILE_TARS)
@pytest.mark.parametrize("place", ["outer", "class"])
def test_a_hostile_tar_is_refused_before_anything_is_written(
    place: str, content: Callable[[], bytes], message: str, ilsvrc: Path
) -> None:
    if place == "class":
        (ilsvrc / TRAIN).write_bytes(tar_of({"n00000001.tar": content(), "n00000002.tar": tar_of({})}))
    else:
        (ilsvrc / TRAIN).write_bytes(content())
    with pytest.raises(ConfigurationError, match=message):
        prepared(ilsvrc, ilsvrc.parent / "pack")
    assert not (ilsvrc.parent / "pack").exists()


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_lie_where_the_standard_library_finds_them(format: int, tmp_path: Path) -> None:
    content = {"a.txt": b"x" * 511, "empty": b"", "folder/" + "n" * 90: b"y" * 512, "ü.txt": b"z" * 513}
    if format != tarfile.USTAR_FORMAT:
        content["long" * 60] = b"long"
    path = tmp_path / "some.tar"
    path.write_bytes(tar_of(content, format=format))
    with path.open("rb") as file:
        found = {member.name: (member.offset, member.length) for member in index_tar(file, path)}
    with tarfile.open(path) as archive:
        assert found == {member.name: (member.offset_data, member.size) for member in archive}


def rewrite(name: str, content: Callable[[], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content())


IDS = {"n00000001": 1, "n00000002": 2}


def broken_devkit(change: Callable[[Content], object], truth: tuple[int, ...] = (2, 1, 2)) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        content = devkit(IDS, list(truth))
        change(content)
        (folder / DEVKIT).write_bytes(tar_of(content, "w:gz"))

    return write


def cut_to(length: int, name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:length])


META = "ILSVRC2012_devkit_t12/data/meta.mat"
TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
BROKEN_ILSVRC: dict[str, tuple[Callable[[Path], object], str]] = {
    "no_train": (lambda folder: (folder / TRAIN).unlink(), "has no file ILSVRC2012_img_train.tar"),
    "train_cut_short": (cut_to(5000, TRAIN), "img_train.tar.* is cut short"),
    "validation_cut_short": (cut_to(2000, VALIDATION), "img_val.tar is cut short"),
    "devkit_cut_short": (cut_to(200, DEVKIT), "devkit_t12.tar.gz is damaged"),
    "devkit_not_zipped": (rewrite(DEVKIT, lambda: b"no"), "devkit_t12.tar.gz is damaged"),
    "devkit_with_a_hostile_name": (
        broken_devkit(lambda c: c.update({"../x": b""})),
        "leads out of the archive; refused",
    ),
    "no_meta": (broken_devkit(lambda c: c.pop(META)), "devkit: it has no meta.mat"),
    "meta_damaged": (broken_devkit(lambda c: c.update({META: b"MATLAB 5.0" * 30})), "cannot read meta.mat"),
    "meta_a_pickle": (broken_devkit(lambda c: c.update({META: b"\x80\x04cos\nsystem\n."})), "cannot read meta.mat"),
    "truth_of_an_unknown_class": (broken_devkit(lambda c: None, (2, 1, 7)), "label 3 of .* is '7'"),
    "truth_of_a_group": (broken_devkit(lambda c: None, (2, 3, 1)), "label 2 of .* is '3'"),
    "truth_not_a_number": (broken_devkit(lambda c: c.update({TRUTH: b"2\none\n2\n"})), "label 2 of .* is 'one'"),
    "truth_too_short": (broken_devkit(lambda c: None, (2, 1)), "has no label for ILSVRC2012_val_00000003.JPEG"),
    "truth_too_long": (
        broken_devkit(lambda c: None, (2, 1, 2, 1)),
        "that are missing: ILSVRC2012_val_00000004",
    ),
    "picture_of_another_name": (rewrite(VALIDATION, lambda: tar_of({"x.JPEG": b""})), "has no label for x.JPEG"),
    "class_not_a_tar": (rewrite(TRAIN, lambda: tar_of({"readme.txt": b""})), "'readme.txt' is not the one tar"),
    "class_twice": (
        rewrite(TRAIN, lambda: tar_of({f"{f}n00000001.tar": tar_of({"1.JPEG": b""}) for f in ("", "b/")})),
        "'b/n00000001.tar' is not the one tar",
    ),
    "class_empty": (rewrite(TRAIN, lambda: tar_of({"n00000001.tar": tar_of({})})), "has no pictures"),
    "no_classes": (rewrite(TRAIN, lambda: tar_of({})), "has no class tars"),
}


@pytest.mark.parametrize("damage, message", BROKEN_ILSVRC.values(), ids=BROKEN_ILSVRC)
def test_ilsvrcs_files_that_do_not_fit_are_refused(
    damage: Callable[[Path], object], message: str, ilsvrc: Path
) -> None:
    damage(ilsvrc)
    with pytest.raises(ConfigurationError, match=message):
        prepared(ilsvrc, ilsvrc.parent / "pack")
    assert not (ilsvrc.parent / "pack").exists()
