"""Packs that tests prepare of small random pictures."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet_mp.data.prepare.prepare import PackSummary, prepare
from alexnet_mp.data.prepare.settings import PreparationSettings


def prepared(source: Path, out: Path, workers: int = 1, **settings: Any) -> PackSummary:
    return prepare(PreparationSettings(source=str(source), out=str(out), workers=workers, **settings))


def noise(seed: int, width: int = 24, height: int = 20) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


COUNTS = {"train": 12, "val": 4, "test": 2}


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file below a folder, and what is in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
