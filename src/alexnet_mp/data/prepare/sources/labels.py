"""Labels of a flat folder of pictures: a list beside it, a solution file, or the ground truth of an ILSVRC devkit."""

import re
from dataclasses import dataclass

from alexnet_mp.data.manifest import Skipped
from alexnet_mp.data.prepare.listing import IMAGE_SUFFIXES, Picture, some
from alexnet_mp.data.prepare.sources.devkit import find_devkit
from alexnet_mp.data.prepare.sources.source import Sight
from alexnet_mp.errors import ConfigurationError

SOLUTION = "LOC_val_solution.csv"  # Kaggle's
ANNOTATIONS = "val_annotations.txt"  # Tiny ImageNet's
_LISTS = {
    "validation": (SOLUTION, ANNOTATIONS, "val.txt", "validation.txt", "val.csv", "validation.csv"),
    "test": ("test.txt", "test.csv"),
}
_COLUMNS = re.compile(r"\s*[,\t]\s*")


@dataclass(frozen=True)
class PictureLabels:
    """The class of each picture, by its file name without suffix, as the file `name` of the source says."""

    name: str
    classes: dict[str, str]


def find_labels(sight: Sight, split: str, folder: str, classes: tuple[str, ...]) -> PictureLabels | None:
    """The labels of the pictures in `folder`; None if the source has none.

    A list has a picture and its class a line, a key or a number from 0 in the order of the keys; further columns are
    not read. Raises ConfigurationError for a list that says two things of a picture, or nothing.
    """
    tree = sight.tree
    name = next((n for n in (tree.find(each) for each in _LISTS.get(split, ())) if n), None)
    if name is not None:
        return PictureLabels(name, _read(tree.text(name), f"{tree.path}: {name}"))
    devkit = find_devkit(tree, sight.scratch) if split == "validation" else None
    if devkit is None:
        return None
    wnids = devkit.true_wnids(devkit.truth, devkit.year.truth, classes)
    stem = f"ILSVRC{devkit.year.number}_val"
    return PictureLabels(devkit.file, {f"{stem}_{i:08d}": wnid for i, wnid in enumerate(wnids, start=1)})


def _read(text: str, where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        columns = _COLUMNS.split(line.strip())
        picture, words = (columns[0], columns[1].split()) if len(columns) > 1 else _last_word(line)
        if number == 1 and picture.lower() in ("imageid", "image", "name", "filename", "file"):
            continue
        if not picture or not words:
            raise ConfigurationError(f"{where}: line {number} is not a picture and its class: {line[:60]!r}")
        key = _stem(picture)
        if found.setdefault(key, words[0]) != words[0]:
            raise ConfigurationError(f"{where}: {picture} has two classes, {found[key]} and {words[0]}")
    return found


def _last_word(line: str) -> tuple[str, list[str]]:
    name, _, word = line.strip().rpartition(" ")
    return name.strip(), [word]


def _stem(name: str) -> str:
    """The last name, without the suffix of a picture: lists are with it or without."""
    last = name.rpartition("/")[2]
    stem, _, suffix = last.rpartition(".")
    return stem if suffix.lower() in IMAGE_SUFFIXES else last


def labeled_pictures(
    sight: Sight, split: str, folder: str, classes: tuple[str, ...], said: PictureLabels
) -> tuple[list[Picture], list[Skipped]]:
    """The pictures under `folder` with their labels, and the files that are none.

    Raises ConfigurationError for a picture without a label, a label without a picture, and an unknown class.
    """
    tree = sight.tree
    labels = {name: label for label, name in enumerate(classes)}
    waiting = dict(said.classes)
    pictures, skipped, seen = [], [], set[str]()
    for name in tree.under(folder):
        stem = _stem(name)
        if name.rpartition(".")[2].lower() not in IMAGE_SUFFIXES:
            if name != said.name:
                skipped.append(Skipped(split, name, f"not a picture that {said.name} has"))
            continue
        key = waiting.pop(stem, None)
        if key is None:
            what = f"{name} is there twice under this name" if stem in seen else f"{said.name} has no label for {name}"
            raise ConfigurationError(f"source={sight.path}: {what}")
        seen.add(stem)
        label = labels.get(key, int(key) if key.isdigit() and len(key) < 9 else -1)
        if not 0 <= label < len(classes):
            raise ConfigurationError(f"source={sight.path}: {said.name} gives {name} the unknown class {key!r}")
        pictures.append(tree.picture(name, label))
    if waiting:
        raise ConfigurationError(
            f"source={sight.path}: {said.name} has labels for pictures that are not in {folder}/: {some(waiting)}"
        )
    return pictures, skipped
