"""Finds the newest checkpoint of a run that is whole, and decides which are kept."""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_mp.checkpoint.files import unfinished, verify_checkpoint
from alexnet_mp.errors import ConfigurationError

_UNVALIDATED = "-unvalidated"


@dataclass(frozen=True)
class Newest:
    """The newest checkpoint whose every file is as it was written, and newer ones with what is wrong with them."""

    folder: Path | None
    description: dict[str, Any]
    damaged: dict[Path, str]


def checkpoint_name(step: int, validated: bool) -> str:
    """The folder's name. After the last step of an epoch there may be two: before its validation, and after it."""
    return f"step-{step:09d}{'' if validated else _UNVALIDATED}"


def newest_checkpoint(checkpoints: Path) -> Newest:
    """Look through the folders themselves, newest first; no pointer is trusted."""
    damaged: dict[Path, str] = {}
    for folder in reversed(_names(checkpoints)):
        try:
            return Newest(folder, verify_checkpoint(folder), damaged)
        except ConfigurationError as error:
            damaged[folder] = str(error)
    return Newest(None, {}, damaged)


def prune(checkpoints: Path, keep: int, best: str) -> None:
    """Remove all but the `keep` newest and the one named `best`."""
    for folder in _names(checkpoints)[:-keep]:
        if folder.name != best:
            with suppress(OSError):
                # Renamed first: a checkpoint that is half removed must not look like a damaged one.
                shutil.rmtree(folder.rename(unfinished(folder)))


def set_aside(folder: Path) -> Path:
    """Rename a damaged checkpoint, for somebody to look at, so that it is neither read nor counted again."""
    number = 1
    while (aside := folder.with_name(f"damaged-{folder.name}" + (f"-{number}" if number > 1 else ""))).exists():
        number += 1
    return folder.rename(aside)


def remove_unfinished(checkpoints: Path) -> None:
    """Remove what is left of checkpoints that were not finished; not while one is being written."""
    for partial in checkpoints.glob(unfinished(Path("step-*")).name):
        shutil.rmtree(partial, ignore_errors=True)


def _names(checkpoints: Path) -> list[Path]:
    """The folders, oldest first."""
    return sorted(
        checkpoints.glob("step-*"),
        key=lambda folder: (folder.name.removesuffix(_UNVALIDATED), not folder.name.endswith(_UNVALIDATED)),
    )
