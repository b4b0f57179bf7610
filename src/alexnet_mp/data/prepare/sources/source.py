"""What every source says of itself: its kind, how it looks, whether it recognizes a path, and its pictures."""

import gzip
import re
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, cast

from alexnet_mp.data.prepare.listing import SPLIT_NAMES, Listing
from alexnet_mp.data.prepare.tar import BoundedReader
from alexnet_mp.data.prepare.tree import SIDE, TARS, Tree, open_tree, tar_files
from alexnet_mp.errors import ConfigurationError, explained

_FIRST_BYTES = 1 << 30  # of a .tar.gz, to see what kind it is
_SPLIT_IN_NAME = re.compile(r"(?<![a-z])(train|validation|val|valid|test)(?![a-z])", re.IGNORECASE)


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
        """The tars in the folder and the names of the first members of each; the tar itself if it is one."""
        if not self.path.is_dir():
            return {self.path: first_names(self.path)} if self.path.name.lower().endswith(TARS) else {}
        paths = [Path(extent.path) for name, extent in self.tree.files.items() if name.lower().endswith(TARS)]
        return {path: first_names(path) for path in paths}


@dataclass(frozen=True)
class Source:
    """One kind of source; `expected` says in a few words how it looks."""

    kind: str
    expected: str
    recognizes: Callable[[Sight], bool]
    list_pictures: Callable[[Sight], Listing]


def first_names(path: Path, count: int = 4) -> list[str]:
    """The names of the first files in a tar, compressed or not. Raises ConfigurationError if it cannot be read."""
    if path.suffix == ".tar":
        with explained(f"cannot read {path}"):
            return [name for name, _ in islice(tar_files(path, path), count)]
    damaged = (tarfile.TarError, EOFError, zlib.error, ValueError, OSError)
    with (
        explained(f"{path} is damaged, or cut short", *damaged),
        gzip.open(path) as content,
        tarfile.open(fileobj=cast(IO[bytes], BoundedReader(content, path, _FIRST_BYTES)), mode="r|") as archive,
    ):
        names = (member.name.removeprefix("./") for member in archive if member.isfile())
        return list(islice((name for name in names if not SIDE.search(name)), count))


def split_in_name(path: Path) -> str:
    """The split that a tar's name says, as in train_images_0.tar.gz. Raises ConfigurationError if it says none."""
    found = _SPLIT_IN_NAME.findall(path.name)
    if len({SPLIT_NAMES[word.lower()] for word in found}) != 1:
        raise ConfigurationError(f"{path}: its name does not say whether it is of train, validation or test")
    return SPLIT_NAMES[found[0].lower()]
