"""Lists the tars of ILSVRC as downloaded: a tar of class tars, flat ones for the other splits, labels by the devkit."""

import re
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from alexnet_mp.data.prepare.listing import SPLIT_NAMES, Extent, Listing, Picture
from alexnet_mp.data.prepare.sources.devkit import ARCHIVES
from alexnet_mp.data.prepare.sources.labels import PictureLabels, labeled_pictures
from alexnet_mp.data.prepare.sources.source import Keyed, Sight
from alexnet_mp.data.prepare.tar import index_tar
from alexnet_mp.data.prepare.tree import open_tree, tar_files
from alexnet_mp.errors import ConfigurationError, explained

_CLASS_TAR = re.compile(r"(n\d{8})\.tar")


def list_ilsvrc(
    sight: Sight, kind: str, year: int, tars: dict[str, str], test_truth: str = "", patches: str = ""
) -> Listing:
    """The pictures in the year's `tars` by split, found where they lie, never unpacked.

    The devkit labels the validation split, with its class numbers also the file `test_truth`. A picture of the tar
    `patches` takes the place of a damaged one of the same split and name. A split without labels is left out.

    The classes are the class tars' wnids, sorted: not in the order of the devkit's numbers. Raises ConfigurationError
    if a file is damaged or hostile, and if pictures and labels do not fit.
    """
    tree, devkit = sight.tree, sight.devkit
    paths = {split: tree.path_of(name) for split, name in tars.items()}
    if paths["train"] is None:
        raise ConfigurationError(f"source={sight.path} has no file {tars['train']}")
    left_out = [f"{split} ({tars[split]} is not there)" for split, path in paths.items() if path is None]
    pictures: dict[str, Keyed] = {}
    with explained(f"cannot read source={sight.path}"):
        pictures["train"], classes = _train(paths["train"])
        for split, path in [(split, path) for split, path in paths.items() if path and split != "train"]:
            truth, name = (devkit.truth if devkit else ""), ARCHIVES[year]
            if split == "test" and devkit:
                found = tree.find(test_truth)
                truth, name = tree.text(found) if found else "", test_truth
            if not devkit or not truth:
                left_out.append(f"{split} ({tars[split]} has no labels, since {name} is not there)")
                continue
            inside = open_tree(path, sight.scratch)
            said = PictureLabels(name, devkit.classes_of(split, truth, classes))
            pictures[split], _ = labeled_pictures(inside, split, "", classes, said)
        patched = tree.path_of(patches) if patches else None
        if patched is not None:
            left_out += _replace(pictures, patched, sight.scratch)
    return sight.listing(kind, pictures, classes, left_out)


def _train(path: Path) -> tuple[Keyed, list[str]]:
    """The pictures of all class tars, and the wnids, sorted."""
    pictures: Keyed = []
    classes: set[str] = set()
    with path.open("rb") as file:
        outer = list(tar_files(path, path))
        for name, extent in tqdm(outer, desc="reading headers", unit="class", disable=None):
            wnid = _CLASS_TAR.fullmatch(PurePosixPath(name).name)
            if not wnid or wnid[1] in classes:
                raise ConfigurationError(f"{path}: member {name!r} is not the one tar of a class (nXXXXXXXX.tar)")
            classes.add(wnid[1])
            inside = list(index_tar(file, path / name, extent.offset, extent.length))
            if not inside:
                raise ConfigurationError(f"{path}: the class tar {name!r} has no pictures")
            for m in inside:
                place = Extent(str(path), m.offset, m.length, extent.modified)
                pictures.append((wnid[1], Picture(f"train/{wnid[1]}/{m.name}", 0, place)))
    if not classes:
        raise ConfigurationError(f"{path} has no class tars")
    return pictures, sorted(classes)


def _replace(pictures: dict[str, Keyed], path: Path, scratch: Path) -> list[str]:
    """Put the pictures of the tar of patches in place; a sentence for each that replaces none."""
    patches = {}
    for name, extent in tar_files(path, scratch):
        *_, folder, last = ("", *PurePosixPath(name).parts)
        if (SPLIT_NAMES.get(folder), last) in patches:
            raise ConfigurationError(f"{path}: there are two patches {folder}/{last}")
        patches[SPLIT_NAMES.get(folder), last] = name, extent
    for split, keyed in pictures.items():
        for i, (key, picture) in enumerate(keyed):
            place = split, PurePosixPath(picture.name).name
            if place in patches:
                keyed[i] = key, picture._replace(extent=patches.pop(place)[1])
    return [f"{name} of {path.name} (it replaces no picture here)" for name, _ in patches.values()]
