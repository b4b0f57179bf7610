"""Reads an ILSVRC devkit, packed or unpacked: which wnid each class number is, its words, and the ground truth."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_mp.data.prepare.tree import Tree, open_tree
from alexnet_mp.errors import ConfigurationError, explained

META = "meta.mat"
LARGEST_DEVKIT = 1 << 28  # bytes; the real ones have less than a tenth
ARCHIVES = {2012: "ILSVRC2012_devkit_t12.tar.gz", 2010: "ILSVRC2010_devkit-1.0.tar.gz"}


@dataclass(frozen=True)
class Devkit:
    """`wnids` by class number, `words` by wnid, and `truth`: a number for every validation picture, as text."""

    file: str
    year: int
    wnids: dict[int, str]
    words: dict[str, str]
    truth: str

    def classes_of(self, split: str, truth: str, classes: Sequence[str]) -> dict[str, str]:
        """The wnid of every picture of a split, by its name without suffix, from its numbers in `truth`.

        Raises ConfigurationError for a number that is not one of the classes.
        """
        found, name = {}, {"validation": "val"}.get(split, split)
        for line, word in enumerate(truth.split(), start=1):
            wnid = self.wnids.get(int(word)) if word.isdigit() and len(word) < 9 else None
            if wnid is None or wnid not in classes:
                raise ConfigurationError(
                    f"{self.file}: label {line} of {split} is {word!r}, not the ILSVRC{self.year}_ID of a class"
                )
            found[f"ILSVRC{self.year}_{name}_{line:08d}"] = wnid
        return found


def find_devkit(tree: Tree, scratch: Path) -> Devkit | None:
    """The devkit that lies in the source, as downloaded or unpacked; None if there is none."""
    for year, name in ARCHIVES.items():
        archive = tree.path_of(name)
        if archive is not None:
            return read_devkit(open_tree(archive, scratch, LARGEST_DEVKIT), year)
        if tree.find(META) and tree.find(_truth(year)):
            return read_devkit(tree, year)
    return None


def _truth(year: int) -> str:
    return f"ILSVRC{year}_validation_ground_truth.txt"


def read_devkit(tree: Tree, year: int) -> Devkit:
    """The devkit in the files of a folder or an archive. Raises ConfigurationError if it is not this year's, whole."""
    from scipy.io import loadmat  # type: ignore[import-untyped]  # slow to import, and only this source needs it

    meta, truth = tree.find(META), tree.find(_truth(year))
    if meta is None or truth is None:
        lacks = _truth(year) if meta else META
        raise ConfigurationError(f"{tree.path} is not ILSVRC-{year}'s devkit: it has no {lacks}")
    content = io.BytesIO(tree.content(meta))
    with explained(f"{tree.path}: cannot read {META}", Exception):  # a damaged file makes scipy raise nearly anything
        rows: Any = loadmat(content, squeeze_me=True, variable_names=["synsets"])["synsets"].reshape(-1)
        wnids = {int(row[f"ILSVRC{year}_ID"]): str(row["WNID"]) for row in rows}
        words = {str(row["WNID"]): str(row["words"]) for row in rows}
    return Devkit(str(tree.path), year, wnids, words, tree.text(truth))
