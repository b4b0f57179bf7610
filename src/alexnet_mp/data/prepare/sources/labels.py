"""Labels of a flat folder of pictures: a list beside it, a solution file, or the ground truth of an ILSVRC devkit."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from alexnet_mp.data.manifest import Skipped
from alexnet_mp.data.prepare.listing import IMAGE_SUFFIXES, some
from alexnet_mp.data.prepare.sources.source import Keyed, Sight
from alexnet_mp.data.prepare.tree import Tree
from alexnet_mp.errors import ConfigurationError

ANNOTATIONS = "val_annotations.txt"  # Tiny ImageNet's
_LISTS = {
    "validation": ("LOC_val_solution.csv", ANNOTATIONS, "val.txt", "validation.txt", "val.csv", "validation.csv"),
    "test": ("test.txt", "test.csv"),
}
_LINE = re.compile(r"\s*(?:([^,\t]*[^,\t\s])\s*[,\t]|(.*\S)\s)\s*([^\s,]+)")  # a name, and a word
_HEADS = ("imageid", "image", "name", "filename", "file")


@dataclass(frozen=True)
class PictureLabels:
    """The class of each picture, by its file name without suffix, as the file `name` of the source says."""

    name: str
    classes: dict[str, str]


def find_labels(sight: Sight, split: str, classes: Sequence[str]) -> PictureLabels | None:
    """The labels of the pictures of a flat split; None if the source has none.

    A list has a picture and its class a line, a key or a number from 0 in the order of the keys; further columns are
    not read. Raises ConfigurationError for a list that says two things of a picture, or nothing.
    """
    name = sight.tree.find(*_LISTS.get(split, ()))
    if name is None:
        kit = sight.devkit if split == "validation" else None
        return PictureLabels(kit.file, kit.classes_of(split, kit.truth, classes)) if kit else None
    found: dict[str, str] = {}
    numbers = {str(number): key for number, key in enumerate(classes)}
    for number, line in enumerate(sight.tree.text(name).splitlines(), start=1):
        match = _LINE.match(line)
        if line.strip() and not match:
            raise ConfigurationError(f"{sight.path}: {name}: line {number} is not a name and a class: {line[:60]!r}")
        picture = (match[1] or match[2]) if match else ""
        if match and not (number == 1 and picture.lower() in _HEADS):
            # A list may number the classes in their order, as Caffe's.
            key = match[3] if match[3] in classes else numbers.get(match[3], match[3])
            if found.setdefault(_stem(picture), key) != key:
                raise ConfigurationError(f"{sight.path}: {name} gives {picture} two classes")
    return PictureLabels(name, found)


def _stem(name: str) -> str:
    """The last name, without the suffix of a picture: lists are with it or without."""
    stem, _, suffix = name.rpartition("/")[2].rpartition(".")
    return stem if suffix.lower() in IMAGE_SUFFIXES else name.rpartition("/")[2]


def labeled_pictures(
    tree: Tree, split: str, folder: str, classes: Sequence[str], said: PictureLabels
) -> tuple[Keyed, list[Skipped]]:
    """The pictures under `folder` with their classes, and the files that are none.

    Raises ConfigurationError for a picture without a label, a label without a picture, and an unknown class.
    """
    waiting = dict(said.classes)
    pictures: Keyed = []
    skipped = []
    for name in tree.under(folder):
        if name.rpartition(".")[2].lower() not in IMAGE_SUFFIXES:
            skipped += [] if name == said.name else [Skipped(split, name, f"not a picture that {said.name} has")]
            continue
        key = waiting.pop(_stem(name), None)
        if key is None:
            twice = _stem(name) in said.classes
            what = f"{name} is there twice" if twice else f"{said.name} has no label for {name}"
            raise ConfigurationError(f"{tree.path}: {what}")
        if key not in classes:
            raise ConfigurationError(f"{tree.path}: {said.name} gives {name} an unknown class, {key!r}")
        pictures.append((key, tree.picture(name, "" if folder else f"{split}/")))
    if waiting:
        raise ConfigurationError(f"{tree.path}: {said.name} has labels for pictures that are missing: {some(waiting)}")
    return pictures, skipped
