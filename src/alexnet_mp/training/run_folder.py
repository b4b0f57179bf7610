"""What a run writes: a folder with its configuration, metrics, summary, log, curves and checkpoints."""

import json
import logging
import time
from pathlib import Path
from typing import Any

from alexnet_mp.errors import ConfigurationError
from alexnet_mp.mesh import Mesh

LOG = logging.getLogger("alexnet_mp")


class RunFolder:
    """The folder of a run. Every process knows its path; the main process alone writes, but for checkpoints."""

    def __init__(self, path: Path, is_main: bool) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.curves = path / "plots" / "learning_curve.png"
        self.metrics = path / "metrics.jsonl"
        self.summary = path / "summary.json"
        self._is_main = is_main
        self._events: Any = None
        self._log: logging.Handler | None = None

    def begin(self) -> None:
        """From now on, write `train.log` and, where tensorboard is installed, its events."""
        if not self._is_main:
            return
        self._log = logging.FileHandler(self.path / "train.log")
        LOG.addHandler(self._log)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._events = SummaryWriter(str(self.path))

    def append(self, record: dict[str, Any]) -> None:
        """Add one line to `metrics.jsonl`, and its numbers to the TensorBoard events where there are any.

        `record` has `kind`, `step` and finite numbers by name.
        """
        if self._is_main:
            with self.metrics.open("a") as file:
                file.write(json.dumps(record, allow_nan=False) + "\n")
        if self._events:
            for name, value in record.items():
                if name not in ("kind", "step"):
                    self._events.add_scalar(f"{record['kind']}/{name}", value, record["step"])

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write `summary.json`, whole or not at all."""
        if self._is_main:
            unfinished = self.summary.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
            unfinished.replace(self.summary)

    def close(self) -> None:
        """End `train.log` and the events."""
        if self._events:
            self._events.close()
        if self._log:
            LOG.removeHandler(self._log)
            self._log.close()


def open_run_folder(run_dir: str | None, experiment_name: str, configuration: str, mesh: Mesh) -> RunFolder:
    """Make the folder `run_dir`, or `runs/<experiment>/<time>/`, with `configuration` in its `config.yaml`.

    The time is the main process's; where another run has the same, `-2` or the next number is added. Raises
    ConfigurationError, in every process, where the folder cannot be made or `run_dir` holds a run already.
    """
    is_main = mesh.placement.is_main
    started = mesh.from_main(int(time.time()))
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(started))
    number, problem = 1, ""
    if is_main:
        problem = _claim(_path(run_dir, experiment_name, stamp, number), configuration)
        while problem == _TAKEN and not run_dir:
            number += 1
            problem = _claim(_path(run_dir, experiment_name, stamp, number), configuration)
    path = _path(run_dir, experiment_name, stamp, mesh.from_main(number))
    if mesh.from_main(len(problem)):
        raise ConfigurationError(f"run folder {path}: {problem or 'the main process could not make it'}")
    folder = RunFolder(path, is_main)
    folder.begin()
    return folder


_TAKEN = "holds a run already; choose another run_dir"


def _path(run_dir: str | None, experiment_name: str, stamp: str, number: int) -> Path:
    name = stamp if number == 1 else f"{stamp}-{number}"
    return (Path(run_dir) if run_dir else Path("runs") / experiment_name / name).absolute()


def _claim(path: Path, configuration: str) -> str:
    """Make the folder for this run alone; return what is wrong with it, or nothing."""
    if any((path / name).exists() for name in ("metrics.jsonl", "summary.json")):
        return _TAKEN
    try:
        for folder in (path, path / "checkpoints", path / "plots"):
            folder.mkdir(parents=True, exist_ok=True)
        with (path / "config.yaml").open("x") as file:  # fails where another run was here first
            file.write(configuration)
    except FileExistsError:
        return _TAKEN if path.is_dir() else "a file is in its place; choose another run_dir"
    except OSError as error:
        return f"{error}; choose another run_dir"
    return ""
