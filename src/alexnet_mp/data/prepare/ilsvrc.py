"""Lists ILSVRC-2012's files as downloaded: a tar of class tars, a tar for validation, the devkit for its labels."""

import re
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from alexnet_mp.data.prepare.listing import Listing, Picture, in_order
from alexnet_mp.data.prepare.tar import TarMember, index_tar, unpack
from alexnet_mp.errors import ConfigurationError, explained

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VALIDATION_TAR = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
_META, _TRUTH = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"
_LARGEST_DEVKIT_FILE = 1 << 26  # bytes; the real ones have less than a tenth
_LARGEST_DEVKIT = 1 << 28
_CLASS_TAR = re.compile(r"(n\d{8})\.tar")
_VALIDATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


def list_ilsvrc(source: Path, scratch: Path) -> Listing:
    """The pictures in the three files of the folder `source`, found where they lie, never unpacked.

    Only two small files of the devkit are unpacked, into the folder `scratch`.

    The classes are the class tars' wnids, sorted: not in the order of the devkit's ILSVRC2012_ID. Raises
    ConfigurationError if a file is missing, damaged or hostile, and if validation and devkit do not fit.
    """
    for name in (TRAIN_TAR, VALIDATION_TAR, DEVKIT):
        if not (source / name).is_file():
            raise ConfigurationError(f"source={source} has no file {name}")
    with explained(f"cannot read source={source}"):
        train, class_names = _train(source / TRAIN_TAR)
        validation = _validation(source / VALIDATION_TAR, _labels(source / DEVKIT, class_names, scratch))
    return Listing("ilsvrc", "image", class_names, {"train": train, "validation": validation})


def _train(path: Path) -> tuple[list[Picture], tuple[str, ...]]:
    modified = path.stat().st_mtime_ns
    pictures: list[Picture] = []
    with path.open("rb") as file:
        classes: dict[str, TarMember] = {}
        for member in index_tar(file, path):
            wnid = _CLASS_TAR.fullmatch(PurePosixPath(member.name).name)
            if not wnid or wnid[1] in classes:
                raise ConfigurationError(
                    f"{path}: member {member.name!r} is not the one tar of a class (nXXXXXXXX.tar)"
                )
            classes[wnid[1]] = member
        if not classes:
            raise ConfigurationError(f"{path} has no class tars")
        class_names = tuple(sorted(classes))
        for label, wnid_name in enumerate(tqdm(class_names, desc="reading headers", unit="class", disable=None)):
            outer = classes[wnid_name]
            inside = list(index_tar(file, path / outer.name, outer.offset, outer.length))
            if not inside:
                raise ConfigurationError(f"{path}: the class tar {outer.name!r} has no pictures")
            pictures += [_picture(path, f"train/{wnid_name}/{m.name}", label, m, modified) for m in inside]
    return in_order(pictures), class_names


def _picture(path: Path, name: str, label: int, member: TarMember, modified: int) -> Picture:
    return Picture(name, label, str(path), member.offset, member.length, modified)


def _validation(path: Path, labels: list[int]) -> list[Picture]:
    modified = path.stat().st_mtime_ns
    found: dict[int, Picture] = {}
    with path.open("rb") as file:
        for member in index_tar(file, path):
            number = _VALIDATION_NAME.fullmatch(PurePosixPath(member.name).name)
            i = int(number[1]) - 1 if number else -1
            if not 0 <= i < len(labels) or i in found:
                raise ConfigurationError(
                    f"{path}: member {member.name!r} is not one of ILSVRC2012_val_00000001.JPEG to {len(labels):08d}, "
                    "each once"
                )
            found[i] = _picture(path, f"validation/{member.name}", labels[i], member, modified)
    if len(found) != len(labels):
        raise ConfigurationError(f"{path} has {len(found)} pictures and {DEVKIT} has labels for {len(labels)}")
    return in_order(list(found.values()))


def _labels(path: Path, class_names: tuple[str, ...], scratch: Path) -> list[int]:
    """The class of every validation picture: the ground truth's ILSVRC2012_IDs through the devkit's table to wnids."""
    unpack(path, (_META, _TRUTH), scratch, _LARGEST_DEVKIT_FILE, _LARGEST_DEVKIT, "ILSVRC-2012's devkit")
    wnids = _wnids(scratch / _META, path)
    labels = {wnid: label for label, wnid in enumerate(class_names)}
    found = []
    for line, word in enumerate((scratch / _TRUTH).read_text("ascii", "replace").split(), start=1):
        wnid = wnids.get(int(word)) if word.isdigit() and len(word) < 9 else None
        if wnid not in labels:
            raise ConfigurationError(
                f"{path}: label {line} of {_TRUTH} is {word!r}, not the ILSVRC2012_ID of a class of {TRAIN_TAR}"
            )
        found.append(labels[wnid])
    return found


def _wnids(meta: Path, path: Path) -> dict[int, str]:
    """The wnid of every ILSVRC2012_ID in the MATLAB file `meta` of the devkit `path`, read without unpickling."""
    from scipy.io import loadmat  # type: ignore[import-untyped]  # slow to import, and only this source needs it

    with explained(f"{path}: cannot read {_META}", Exception):  # a damaged file makes scipy raise nearly anything
        synsets = loadmat(meta, squeeze_me=True, variable_names=["synsets"])["synsets"]
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets.reshape(-1)}
