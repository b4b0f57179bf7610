"""What every source gives: its kind, how it looks, whether it recognizes a path, and its pictures by class."""

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from alexnet_mp.data.manifest import Skipped
from alexnet_mp.data.prepare.listing import SPLIT_NAMES, Listing, Picture, in_order
from alexnet_mp.data.prepare.sources.devkit import Devkit, find_devkit
from alexnet_mp.data.prepare.tree import SIDE, TARS, Tree, open_tree
from alexnet_mp.errors import ConfigurationError, explained

Keyed = list[tuple[str, Picture]]  # pictures with the key of their class; labels follow when all classes are known

_HEAD = 1 << 24  # bytes of a tar that show of what kind it is
_SPLIT_IN_NAME = re.compile(r"(?<![a-z])(train|validation|val|valid|test)(?![a-z])", re.IGNORECASE)
_LISTS = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")  # `n01440764 tench, Tinca tinca` a line


class Sight:
    """A source as the user gave it. `scratch` is a folder for what is unpacked."""

    def __init__(self, path: Path, scratch: Path) -> None:
        self.path, self.scratch = path, scratch

    @cached_property
    def tree(self) -> Tree:
        """Its files; an archive is opened, and a .tar.gz inflated, when they are first asked for."""
        return open_tree(self.path, self.scratch)

    @cached_property
    def tars(self) -> dict[Path, list[str]]:
        """The tars in the folder, or the source if it is one, with the names of the first members of each."""
        paths = [Path(e.path) for e in self.tree.files.values()] if self.path.is_dir() else [self.path]
        return {path: _first_names(path) for path in sorted(paths) if path.name.lower().endswith(TARS)}

    @cached_property
    def devkit(self) -> Devkit | None:
        """The devkit that lies in it."""
        return find_devkit(self.tree, self.scratch)

    def labeled_tars(self, labeled: Callable[[list[str]], bool]) -> tuple[dict[Path, str], list[str]]:
        """The split of each tar in whose first members there are labels, and a word on each of the other tars."""
        with_labels = {path: _split_in_name(path) for path, first in self.tars.items() if labeled(first) or not first}
        return with_labels, [
            f"{path.name} (its pictures have no labels)" for path in self.tars if path not in with_labels
        ]

    def class_words(self, classes: Sequence[str]) -> dict[str, str]:
        """What classes are in words, by a list of those that circulate, or by the devkit."""
        name = self.tree.find(*_LISTS)
        words = self.devkit.words if self.devkit else {}
        if name is not None:
            pairs = (line.split(None, 1) for line in self.tree.text(name).splitlines())
            words = {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
        return {key: words[key] for key in classes if key in words}

    def listing(
        self,
        kind: str,
        pictures: dict[str, Keyed],
        classes: Sequence[str] | None = None,
        left_out: Sequence[str] = (),
        skipped: Sequence[Skipped] = (),
    ) -> Listing:
        """The pictures with labels; without `classes`, they are those of the training pictures, sorted.

        Raises ConfigurationError for a class without pictures to train on, and for one that `train` does not have.
        """
        train = {key for key, _ in pictures.get("train", ())}
        classes = sorted(train) if classes is None else classes
        if not classes:
            raise ConfigurationError(f"source={self.path} ({kind}) has no pictures of any class to train on")
        empty = set(classes) - train
        if empty:
            raise ConfigurationError(
                f"source={self.path}: class {min(empty)} has no files; every class needs pictures to train on"
            )
        labels = {key: label for label, key in enumerate(classes)}
        for split, keyed in pictures.items():
            for key, picture in keyed:
                if key not in labels:
                    raise ConfigurationError(
                        f"source={self.path}: {split} has {picture.name} of {key}, a class that train does not have"
                    )
        splits = {split: in_order([p._replace(label=labels[k]) for k, p in keyed]) for split, keyed in pictures.items()}
        words = self.class_words(classes)
        return Listing(kind, "image", tuple(classes), splits, tuple(skipped), words, tuple(left_out))


@dataclass(frozen=True)
class Source:
    """One kind of source; `expected` says in a few words how it looks."""

    kind: str
    expected: str
    recognizes: Callable[[Sight], bool]
    list_pictures: Callable[[Sight], Listing]


def _first_names(path: Path) -> list[str]:
    """The names of files at the beginning of a tar; none if it is damaged, which reading all of it will say."""
    with (
        explained(f"{path} is damaged, or cut short", OSError, EOFError, zlib.error),
        path.open("rb") if path.suffix.lower() == ".tar" else gzip.open(path) as content,
    ):
        head = io.BytesIO(content.read(_HEAD))
    names = []
    with suppress(tarfile.TarError, ValueError), tarfile.open(fileobj=head, mode="r:") as archive:
        names += [member.name for member in archive if member.isfile()][:8]
    return [name for name in names if not SIDE.search(name)]


def _split_in_name(path: Path) -> str:
    """The split that a tar's name says, as in train_images_0.tar.gz. Raises ConfigurationError if it says none."""
    found = {SPLIT_NAMES[word.lower()] for word in _SPLIT_IN_NAME.findall(path.name)}
    if len(found) != 1:
        raise ConfigurationError(f"{path}: its name does not say whether it is of train, validation or test")
    return found.pop()
