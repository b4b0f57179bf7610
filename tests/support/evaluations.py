"""A pack of random pictures to evaluate on, and the evaluate command in this process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet_mp.commands import evaluate
from alexnet_mp.common.cli import compose
from alexnet_mp.data.prepare.prepare import prepare
from alexnet_mp.data.prepare.settings import PreparationSettings
from alexnet_mp.errors import ConfigurationError

CLASSES = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu"]
COUNTS = {"train": 14, "val": 17, "test": 9}
DIVISOR = 64


def make_pack(folder: Path, classes: list[str]) -> str:
    """A pack of random pictures of 20x20, coarse enough that a network tells them apart."""
    generator = np.random.default_rng(len(classes))
    for split, count in COUNTS.items():
        for i in range(count):
            path = folder / "photos" / split / classes[i % len(classes)] / f"{i:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (5, 5, 3), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
            Image.fromarray(pixels).save(path)
    prepare(PreparationSettings(source=str(folder / "photos"), out=str(folder / "pack"), workers=1, size=20))
    return str(folder / "pack")


Save = Callable[..., str]


def run(*overrides: str) -> None:
    evaluate.run(compose("evaluate", ["device=cpu", *overrides]))


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def refused(*overrides: str) -> str:
    """The message, one line, of a use that cannot be."""
    with pytest.raises(ConfigurationError) as error:
        run(*overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def assert_says(line: str, *fragments: str) -> None:
    assert [fragment for fragment in fragments if fragment not in line] == [], line
