"""Real photographs for tests, out of the archives that lie beside a development checkout; tests skip without them."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import CHECKOUT

FOLDER = CHECKOUT.parent / "shared" / "data"


def unpack(archive: str, target: Path, wanted: Callable[[list[str]], list[str]]) -> list[Path]:
    """Unpack the files of an archive that `wanted` chooses from their sorted names into `target`."""
    path = FOLDER / archive
    if not path.exists():
        pytest.skip(f"{archive} is not there: no real photographs beside this checkout")
    with zipfile.ZipFile(path) as file:
        names = wanted(sorted(name for name in file.namelist() if not name.endswith("/")))
        return [Path(file.extract(name, target)) for name in names]


def clothing(target: Path, of_each_class: int) -> list[Path]:
    """Clothing photographs: the first so many of every class of train/ and validation/."""

    def first(names: list[str]) -> list[str]:
        classes: dict[str, list[str]] = {}
        for name in names:
            if name.endswith(".jpg"):
                classes.setdefault(name.rsplit("/", 1)[0], []).append(name)
        return [name for group in classes.values() for name in group[:of_each_class]]

    return unpack("clothing-photos.zip", target, first)


def imagenet(target: Path, count: int) -> list[Path]:
    """Photographs of ImageNet, `<wnid>_<name>.JPEG`: the only grayscale one of the 100, and the first others."""
    gray = "n03908714_pencil_sharpener.JPEG"
    return unpack("imagenet-samples.zip", target, lambda names: [gray, *(n for n in names if n != gray)][:count])
