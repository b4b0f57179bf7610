"""Lists the tars of ILSVRC as downloaded: a tar of class tars, flat ones for the other splits, labels by the devkit."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from alexnet_mp.data.prepare.listing import Listing, Picture, in_order
from alexnet_mp.data.prepare.sources.devkit import Year, find_devkit
from alexnet_mp.data.prepare.sources.source import Sight
from alexnet_mp.data.prepare.sources.words import class_words
from alexnet_mp.data.prepare.tar import TarMember, index_tar
from alexnet_mp.data.prepare.tree import Tree
from alexnet_mp.errors import ConfigurationError, explained

_CLASS_TAR = re.compile(r"(n\d{8})\.tar")


def list_ilsvrc(sight: Sight, year: Year, tars: dict[str, str], truths: dict[str, str], patch: str = "") -> Listing:
    """The pictures in the year's `tars` by split, found where they lie, never unpacked.

    The devkit labels the validation split; `truths` names a file for other splits. A picture of the tar `patch` takes
    the place of a damaged one of the same split and name. A split whose labels are not there is left out.

    The classes are the class tars' wnids, sorted: not in the order of the devkit's numbers. Raises ConfigurationError
    if a file is damaged or hostile, and if pictures and labels do not fit.
    """
    tree = sight.tree
    train = tree.path_of(tars["train"])
    if train is None:
        raise ConfigurationError(f"source={sight.path} has no file {tars['train']}")
    with explained(f"cannot read source={sight.path}"):
        devkit = find_devkit(tree, sight.scratch, (year,))
        pictures, class_names = _train(train)
        splits, left_out = {"train": pictures}, []
        for split, name in tars.items():
            path = tree.path_of(name)
            if split == "train" or path is None:
                left_out += [f"{split} ({name} is not there)"] if path is None else []
                continue
            truth = devkit.truth if devkit and split == "validation" else _truth(tree, truths.get(split, ""))
            if devkit is None or not truth:
                lacks = year.archive if devkit is None else truths.get(split) or "a public ground truth"
                left_out.append(f"{split} ({name} has no labels without {lacks}, which is not there)")
                continue
            where = year.truth if split == "validation" else truths[split]
            wnids = devkit.true_wnids(truth, where, class_names)
            said = devkit.file if split == "validation" else where
            splits[split] = _flat(path, split, year, wnids, class_names, said)
        patches = tree.path_of(patch) if patch else None
        if patches is not None:
            left_out += _replace(splits, patches)
    words = devkit.words if devkit else class_words(tree, class_names)
    return Listing(
        "ilsvrc" if year.number == 2012 else f"ilsvrc{year.number}",
        "image",
        class_names,
        {split: in_order(each) for split, each in splits.items()},
        class_words={wnid: words[wnid] for wnid in class_names if wnid in words},
        left_out=tuple(left_out),
    )


def _truth(tree: Tree, name: str) -> tuple[str, ...]:
    found = tree.find(name) if name else None
    return tuple(tree.text(found).split()) if found else ()


def _train(path: Path) -> tuple[list[Picture], tuple[str, ...]]:
    modified = path.stat().st_mtime_ns
    pictures: list[Picture] = []
    with path.open("rb") as file:
        classes: dict[str, TarMember] = {}
        for member in _members(path):
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
    return pictures, class_names


def _members(path: Path) -> Iterator[TarMember]:
    with path.open("rb") as file:
        yield from index_tar(file, path)


def _picture(path: Path, name: str, label: int, member: TarMember, modified: int) -> Picture:
    return Picture(name, label, str(path), member.offset, member.length, modified)


def _flat(
    path: Path, split: str, year: Year, wnids: list[str], class_names: tuple[str, ...], said: str
) -> list[Picture]:
    modified = path.stat().st_mtime_ns
    labels = {wnid: label for label, wnid in enumerate(class_names)}
    short = {"validation": "val"}.get(split, split)
    pattern = re.compile(rf"ILSVRC{year.number}_{short}_(\d{{8}})\.JPEG")
    found: dict[int, Picture] = {}
    for member in _members(path):
        number = pattern.fullmatch(PurePosixPath(member.name).name)
        i = int(number[1]) - 1 if number else -1
        if not 0 <= i < len(wnids) or i in found:
            raise ConfigurationError(
                f"{path}: member {member.name!r} is not one of ILSVRC{year.number}_{short}_00000001.JPEG to "
                f"{len(wnids):08d}, each once"
            )
        found[i] = _picture(path, f"{split}/{member.name}", labels[wnids[i]], member, modified)
    if len(found) != len(wnids):
        missing = min(set(range(len(wnids))) - set(found)) + 1
        raise ConfigurationError(
            f"{path} has {len(found)} pictures and {said} has labels for {len(wnids)}; number {missing:08d} is missing"
        )
    return list(found.values())


def _replace(splits: dict[str, list[Picture]], path: Path) -> list[str]:
    """Put the pictures of the tar of patches in place; a sentence for those that replace none."""
    modified = path.stat().st_mtime_ns
    folders = {"train": "train", "val": "validation", "test": "test"}
    patches = {}
    for member in _members(path):
        parts = PurePosixPath(member.name).parts
        split = folders.get(parts[-2]) if len(parts) > 1 else None
        if split is None or (split, parts[-1]) in patches:
            raise ConfigurationError(f"{path}: member {member.name!r} is not in train/, val/ or test/, each once")
        patches[split, parts[-1]] = member
    for split, pictures in splits.items():
        for place, picture in enumerate(pictures):
            patched = patches.pop((split, PurePosixPath(picture.name).name), None)
            if patched:
                pictures[place] = _picture(path, picture.name, picture.label, patched, modified)
    return [f"{split}/{name} of {path.name} (it replaces no picture here)" for split, name in sorted(patches)]
