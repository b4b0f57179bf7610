"""The checkpoints of a run: the newest that is whole, and which are kept."""

import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_mp.checkpoint.files import unfinished, verify_checkpoint
from alexnet_mp.errors import ConfigurationError


@dataclass(frozen=True)
class Newest:
    """The newest checkpoint whose every file is as it was written, and newer ones with what is wrong with them."""

    folder: Path | None
    description: dict[str, Any]
    damaged: dict[Path, str]


def checkpoint_name(step: int) -> str:
    """The folder's name, so that names sort like steps."""
    return f"step-{step:09d}"


def newest_checkpoint(checkpoints: Path) -> Newest:
    """Look through the folders themselves, newest first; no pointer is trusted."""
    damaged: dict[Path, str] = {}
    for folder in reversed(_names(checkpoints)):
        try:
            return Newest(folder, verify_checkpoint(folder), damaged)
        except ConfigurationError as error:
            damaged[folder] = str(error)
    return Newest(None, {}, damaged)


def prune(checkpoints: Path, keep: int, best: Collection[str]) -> None:
    """Remove all but the `keep` newest and those named in `best`."""
    for folder in _names(checkpoints)[:-keep]:
        if folder.name not in best:
            _remove(folder)


def set_aside(folder: Path) -> Path:
    """Rename a damaged checkpoint, for somebody to look at, so that it is neither read nor counted again."""
    number = 1
    while (aside := folder.with_name(f"damaged-{folder.name}" + (f"-{number}" if number > 1 else ""))).exists():
        number += 1
    return folder.rename(aside)


def remove_unfinished(checkpoints: Path, but: str = "") -> None:
    """Remove what is left of checkpoints that were not finished, but of that named `but`."""
    for partial in checkpoints.glob(unfinished(Path("step-*")).name):
        if partial != unfinished(checkpoints / but):
            shutil.rmtree(partial, ignore_errors=True)


def _names(checkpoints: Path) -> list[Path]:
    return sorted(checkpoints.glob("step-*"))


def _remove(folder: Path) -> None:
    # Renamed first: a checkpoint that is half removed must not look like a damaged one.
    with suppress(OSError):
        shutil.rmtree(folder.rename(unfinished(folder)))
