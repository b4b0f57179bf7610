"""Finds a checkpoint by name: its own folder, a run's folder (the newest one), `RUN@best` or `RUN@330` (of a step)."""

from collections.abc import Iterable
from pathlib import Path

from alexnet_mp.checkpoint.files import CHECKPOINT_FILE
from alexnet_mp.checkpoint.retention import checkpoint_name, newest_checkpoint
from alexnet_mp.common.schema import suggestion
from alexnet_mp.errors import ConfigurationError

_FOLDER = "checkpoints"  # of a run
_MOST_LISTED = 8


def find_checkpoint(name: str | Path) -> Path:
    """The absolute path of the checkpoint that `name` means; whether its files are whole is for its reader to say.

    The folder of a checkpoint means itself, and that of a run its newest checkpoint that is whole. `RUN@best` is the
    best by validation error, as the newest one says. `RUN@330` is the one after step 330, the validated one if there
    are two. A folder that is none of these, and holds no runs, is returned as it is.

    Raises ConfigurationError, with the choices, for a folder of several runs, a run without such a checkpoint, and a
    path that does not exist.
    """
    path = Path(name).absolute()
    run, at, which = str(path).rpartition("@")
    if at and not path.exists():
        return _of_run(Path(run), which)
    if (path / CHECKPOINT_FILE).exists():
        return path
    if path.name == _FOLDER and list(path.glob("step-*")):
        path = path.parent
    if (path / _FOLDER).is_dir() or runs_in(path) or not path.exists():
        return _of_run(path, "")
    return path


def runs_in(folder: Path) -> list[str]:
    """The runs in a folder, or in the folders in it, as paths from it; none if it is a run's or a checkpoint's own."""
    found = [] if (folder / _FOLDER).is_dir() else [*folder.glob(f"*/{_FOLDER}"), *folder.glob(f"*/*/{_FOLDER}")]
    return sorted(each.parent.relative_to(folder).as_posix() for each in found)


def _of_run(run: Path, which: str) -> Path:
    """The checkpoint of a run that `which` names: `best`, a step, or nothing for the newest."""
    if not (run / _FOLDER).is_dir():
        raise ConfigurationError(_no_run(run))
    newest = newest_checkpoint(run / _FOLDER)
    if newest.folder is None:
        damaged = f": {next(iter(newest.damaged.values()))}" if newest.damaged else ""
        raise ConfigurationError(f"run {run} has no whole checkpoint{damaged}")
    if not which:
        return newest.folder
    progress = newest.description.get("progress")
    best = str(progress.get("best_checkpoint") or "") if isinstance(progress, dict) else ""
    names = [best] if which == "best" else [which]
    if which.isdecimal():
        names = [checkpoint_name(int(which), validated) for validated in (True, False)]
    for folder in (run / _FOLDER / each for each in names if each):
        if folder.is_dir():
            return folder
    steps = dict.fromkeys(each.name.split("-")[1].lstrip("0") or "0" for each in sorted((run / _FOLDER).glob("step-*")))
    choices = [f"{run.name}@{each}" for each in ([*steps, "best"] if best else steps)]
    raise ConfigurationError(f"run {run} has no checkpoint {which!r}; it has {_listed(choices)}")


def _no_run(path: Path) -> str:
    runs = runs_in(path)
    if runs:
        return f"{path} is not a checkpoint but a folder of runs; name one of them, or RUN@best: {_listed(runs)}"
    if path.exists():
        return f"{path} is not a run: it has no folder {_FOLDER}"
    beside = sorted(each.name for each in path.parent.glob("*") if each.is_dir())
    near = suggestion(path.name, beside) or (f"; in {path.parent} there are {_listed(beside)}" if beside else "")
    return f"{path} is not a checkpoint: it does not exist{near}"


def _listed(names: Iterable[str]) -> str:
    """The last names, which of runs are the latest."""
    words = list(names)
    more = len(words) - _MOST_LISTED
    return ", ".join(words[-_MOST_LISTED:]) + (f" and {more} more before" if more > 0 else "")
