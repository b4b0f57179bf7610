"""Reads an ILSVRC devkit, packed or unpacked: which wnid each class number is, its words, and the ground truth."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_mp.data.prepare.tar import unpack
from alexnet_mp.data.prepare.tree import Tree
from alexnet_mp.errors import ConfigurationError, explained

META = "meta.mat"
LARGEST_DEVKIT_FILE = 1 << 26  # bytes; the real ones have less than a tenth
LARGEST_DEVKIT = 1 << 28


@dataclass(frozen=True)
class Year:
    """A year of the challenge, and the file names of its devkit: `archive`, and `truth` in it."""

    number: int
    archive: str

    @property
    def truth(self) -> str:
        return f"ILSVRC{self.number}_validation_ground_truth.txt"


YEARS = (Year(2012, "ILSVRC2012_devkit_t12.tar.gz"), Year(2010, "ILSVRC2010_devkit-1.0.tar.gz"))


@dataclass(frozen=True)
class Devkit:
    """`wnids` by class number, `words` by wnid, and `truth`: a number for every validation picture, as text."""

    file: str
    year: Year
    wnids: dict[int, str]
    words: dict[str, str]
    truth: tuple[str, ...]

    def true_wnids(self, truth: tuple[str, ...], where: str, classes: tuple[str, ...]) -> list[str]:
        """The wnid of every picture. Raises ConfigurationError for a number that is not one of the classes."""
        known, found = set(classes), []
        for line, word in enumerate(truth, start=1):
            wnid = self.wnids.get(int(word)) if word.isdigit() and len(word) < 9 else None
            if wnid not in known:
                raise ConfigurationError(
                    f"{self.file}: label {line} of {where} is {word!r}, not the ILSVRC{self.year.number}_ID of a class "
                    "to train on"
                )
            found.append(str(wnid))
        return found


def find_devkit(tree: Tree, scratch: Path, years: tuple[Year, ...] = YEARS) -> Devkit | None:
    """The devkit that lies in the source, as downloaded or unpacked; None if there is none."""
    for year in years:
        archive = tree.path_of(year.archive)
        if archive is not None:
            return read_devkit(archive, scratch, year)
        meta, truth = tree.find(META), tree.find(year.truth)
        if meta is not None and truth is not None:
            return _devkit(tree.content(meta), tree.text(truth), f"{tree.path}/{truth}", year)
    return None


def read_devkit(archive: Path, scratch: Path, year: Year) -> Devkit:
    """The devkit in its archive, two files of which are unpacked into `scratch`.

    Raises ConfigurationError if the archive is damaged, hostile, or not this year's devkit.
    """
    what = f"ILSVRC-{year.number}'s devkit"
    unpack(archive, (META, year.truth), scratch, LARGEST_DEVKIT_FILE, LARGEST_DEVKIT, what)
    truth = (scratch / year.truth).read_text("ascii", "replace")
    return _devkit((scratch / META).read_bytes(), truth, str(archive), year)


def _devkit(meta: bytes, truth: str, file: str, year: Year) -> Devkit:
    from scipy.io import loadmat  # type: ignore[import-untyped]  # slow to import, and only this source needs it

    key = f"ILSVRC{year.number}_ID"
    with explained(f"{file}: cannot read {META}", Exception):  # a damaged file makes scipy raise nearly anything
        rows: Any = loadmat(io.BytesIO(meta), squeeze_me=True, variable_names=["synsets"])["synsets"].reshape(-1)
        wnids = {int(row[key]): str(row["WNID"]) for row in rows}
        words = {str(row["WNID"]): str(row["words"]) for row in rows}
    return Devkit(file, year, wnids, words, tuple(truth.split()))
