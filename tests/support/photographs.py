"""Real photographs for tests: windows of scikit-learn's two, and archives that lie beside a development checkout."""

import zipfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.processes import CHECKOUT

FOLDER = CHECKOUT.parent / "shared" / "data"
CLASSES = 10


def windows(count: int) -> list[Image.Image]:
    """So many different windows of china.jpg and flower.jpg (640x427), 150 to 400 pixels a side; the first is gray."""
    folder = files("sklearn.datasets") / "images"
    whole = [Image.open(folder / name).convert("RGB") for name in ("china.jpg", "flower.jpg")]
    random, found = np.random.default_rng(0), []
    for i in range(count):
        width, height = (int(side) for side in random.integers(150, 400, 2))
        left, top = (int(random.integers(room + 1)) for room in (640 - width, 427 - height))
        window = whole[i % 2].crop((left, top, left + width, top + height))
        found.append(window if i else window.convert("L"))
    return found


def class_folders(target: Path, of_each_class: int) -> list[Path]:
    """JPEG photographs of ten classes, so many of each, in train/ and validation/."""
    names = [
        target / split / f"class{c}" / f"{i:04}.jpg"
        for split in ("train", "validation")
        for c in range(CLASSES)
        for i in range(of_each_class)
    ]
    return written(names)


def flat(target: Path, count: int) -> list[Path]:
    """JPEG photographs named as those of ImageNet, `<wnid>_<name>.JPEG`, one of each class."""
    return written([target / f"n{i:08}_window.JPEG" for i in range(1, count + 1)])


def written(names: list[Path]) -> list[Path]:
    """A photograph under each name, as JPEG."""
    for name, window in zip(names, windows(len(names)), strict=True):
        name.parent.mkdir(parents=True, exist_ok=True)
        window.save(name, "JPEG", quality=92)
    return names


def unpack(archive: str, target: Path, wanted: Callable[[list[str]], list[str]]) -> list[Path]:
    """Unpack the files of an archive that `wanted` chooses from their sorted names; skip the test without it."""
    path = FOLDER / archive
    if not path.exists():
        pytest.skip(f"{archive} is not there: it lies beside a development checkout only")
    with zipfile.ZipFile(path) as file:
        names = wanted(sorted(name for name in file.namelist() if not name.endswith("/")))
        return [Path(file.extract(name, target)) for name in names]
