"""Finds and locks the folder that a run writes into: a new one, or one in which it resumes."""

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alexnet_mp.checkpoint.retention import newest_checkpoint
from alexnet_mp.common.disk import FolderLock, regular, write_whole
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.parallel.mesh import Mesh

_LAUNCH = ".launch"
_BEGUN = ("metrics.jsonl", "config.yaml")  # what a run that has made no checkpoint leaves; in this order renamed


@dataclass(frozen=True)
class RunLock:
    """A locked run folder. `checkpoint` is the newest that is whole, with its `description`; empty if there is none.

    `damaged` has newer checkpoints, by name, with what is wrong with them.
    """

    path: str
    checkpoint: str = ""
    description: dict[str, Any] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    problem: str = ""


def lock_run_folder(
    run_dir: str | None, experiment_name: str, configuration: str, mesh: Mesh
) -> tuple[RunLock, FolderLock | None]:
    """Find or make the folder `run_dir`, or `runs/<experiment>/<time>/`, for a run of `configuration`.

    The main process does it, and tells all; it alone has the lock. Resumes if the folder has a checkpoint. A run that
    has made none yet is begun again, with whatever configuration; what it left of another one is kept under other
    names. Without `run_dir`, resumes in the folder of the processes that torchrun has restarted. Raises
    ConfigurationError, in every process, if the folder cannot be made, is in use, or holds what nobody can go on from.
    Nothing in a folder that holds a run is changed.
    """
    found, lock = RunLock(""), None
    if mesh.placement.is_main:
        found, lock = _lock_folder(run_dir, experiment_name, configuration)
    told = RunLock(**json.loads(mesh.text_from_main(json.dumps(asdict(found)))))
    if told.problem:
        raise ConfigurationError(f"run folder {told.path}: {told.problem}")
    return told, lock


def has_checkpoint(run_dir: str | None, experiment_name: str, configuration: str) -> bool:
    """True if there is a checkpoint, whole or not, in the folder that `lock_run_folder` would take."""
    with suppress(OSError):  # of which `lock_run_folder` speaks
        path = Path(run_dir) if run_dir else _restarted(experiment_name, configuration)
        return path is not None and any((path / "checkpoints").glob("step-*"))
    return False


def _lock_folder(run_dir: str | None, experiment_name: str, configuration: str) -> tuple[RunLock, FolderLock | None]:
    path, lock = Path(run_dir or Path("runs") / experiment_name).absolute(), None
    try:
        if not run_dir:
            path = _restarted(experiment_name, configuration) or _new_folder(experiment_name)
        path.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(path)
        found = _look(path, configuration)
        if not found.problem and not found.checkpoint:
            _begin(path, configuration)
    except BlockingIOError:
        found = RunLock(str(path), problem="another process is training into it; choose another run_dir")
    except OSError as error:
        problem = "a file is in its place" if path.is_file() else str(error)
        found = RunLock(str(path), problem=f"{problem}; choose another run_dir")
    if found.problem and lock:
        lock.release()
        lock = None
    return found, lock


def _look(path: Path, configuration: str) -> RunLock:
    """What the folder holds."""
    newest = newest_checkpoint(path / "checkpoints")
    damaged = {folder.name: problem for folder, problem in newest.damaged.items()}
    if newest.folder:
        return RunLock(str(path), newest.folder.name, newest.description, damaged)
    if damaged:
        name, problem = next(iter(damaged.items()))
        return RunLock(
            str(path),
            problem=f"none of its {len(damaged)} checkpoints is whole; the newest, {name}: {problem}; choose another "
            "run_dir to train from the beginning",
        )
    held = [name for name in ("summary.json", *_BEGUN) if (path / name).exists()]
    begun = _is_of(path, configuration) or ("config.yaml" in held and (path / "checkpoints").is_dir())
    if held and (not begun or "summary.json" in held):
        return RunLock(str(path), problem="holds a run already, and no checkpoint of it; choose another run_dir")
    return RunLock(str(path))


def _begin(path: Path, configuration: str) -> None:
    for name in ("checkpoints", "plots"):
        (path / name).mkdir(exist_ok=True)
    if (path / "config.yaml").exists() and not _is_of(path, configuration):
        number = 1 + len(list(path.glob("config-earlier-*.yaml")))
        for kept in (path / name for name in _BEGUN if (path / name).exists()):
            kept.rename(kept.with_name(f"{kept.stem}-earlier-{number}{kept.suffix}"))
    # Whole or not at all: half of a configuration would be taken for that of another run.
    write_whole(path / _LAUNCH, _launch().encode())
    write_whole(path / "config.yaml", configuration.encode())


def _new_folder(experiment_name: str) -> Path:
    """`runs/<experiment>/<time>/`; where another run has the same time, `-2` or the next number is added."""
    runs = (Path("runs") / experiment_name).absolute()
    runs.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(time.time()))
    path, number = runs / stamp, 1
    while True:
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1
            path = runs / f"{stamp}-{number}"


def _restarted(experiment_name: str, configuration: str) -> Path | None:
    """The folder of this run where torchrun has started its processes again; None if they are its first.

    It is found by what was noted in it. TORCHELASTIC_RESTART_COUNT does not tell: it stays where the fault was on
    another node.
    """
    launch = _launch()
    notes = sorted((Path("runs") / experiment_name).absolute().glob(f"*/{_LAUNCH}"), reverse=True) if launch else []
    folders = (note.parent for note in notes if regular(note).read_bytes() == launch.encode())
    return next((folder for folder in folders if _is_of(folder, configuration)), None)


def _is_of(folder: Path, configuration: str) -> bool:
    started = folder / "config.yaml"
    return started.exists() and regular(started).read_bytes() == configuration.encode()


def _launch() -> str:
    """What names the torchrun that started this process, while it lives; empty if none did.

    Its run id is not enough: users give several runs the same.
    """
    run_id, parent = os.environ.get("TORCHELASTIC_RUN_ID"), os.getppid()
    return f"{run_id} {socket.gethostname()} {parent} {_started(parent)}" if run_id else ""


def _started(process: int) -> str:
    """When a process started, in clock ticks since the system did (proc_pid_stat(5)); empty on other systems."""
    stat = Path(f"/proc/{process}/stat")
    return stat.read_text("utf-8").rpartition(")")[2].split()[19] if stat.exists() else ""
