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

    def append(self, record: dict[str, Any]) -> None:
        """Add one line to `metrics.jsonl`, and its numbers to the TensorBoard events where there are any.

        `record` has `kind`, `step` and numbers by name.
        """
        if self._is_main:
            with self.metrics.open("a") as file:
                file.write(json.dumps(record) + "\n")
        if self._events:
            for name, value in record.items():
                if name not in ("kind", "step"):
                    self._events.add_scalar(f"{record['kind']}/{name}", value, record["step"])

    def begin_events(self) -> None:
        """Write TensorBoard events beside the metrics from now on, where tensorboard is installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._events = SummaryWriter(str(self.path))

    def close(self) -> None:
        """Write what TensorBoard's writer still holds."""
        if self._events:
            self._events.close()

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write `summary.json`, whole or not at all."""
        if self._is_main:
            unfinished = self.summary.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(summary, indent=2) + "\n")
            unfinished.replace(self.summary)


def open_run_folder(run_dir: str | None, experiment_name: str, configuration: str, mesh: Mesh) -> RunFolder:
    """Make the folder `run_dir`, or `runs/<experiment>/<time>/` with the time that the main process sees.

    Writes `configuration` to `config.yaml` and begins `train.log`. Raises ConfigurationError, in every process, where
    the folder cannot be made or holds a run already.
    """
    started = mesh.from_main(int(time.time()))
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(started))
    path = Path(run_dir) if run_dir else Path("runs") / experiment_name / stamp
    is_main = mesh.placement.is_main
    folder = RunFolder(path.absolute(), is_main)
    problem = _make(folder, configuration) if is_main else ""
    if mesh.from_main(len(problem)):
        raise ConfigurationError(problem or f"the main process could not make {path}")
    if is_main:
        LOG.addHandler(logging.FileHandler(folder.path / "train.log"))
        folder.begin_events()
    return folder


def _make(folder: RunFolder, configuration: str) -> str:
    """Make the folder; return what is wrong with it, or nothing."""
    try:
        if folder.metrics.exists() or folder.summary.exists():
            return f"{folder.path} holds a run already; choose another run_dir"
        for path in (folder.path, folder.checkpoints, folder.curves.parent):
            path.mkdir(parents=True, exist_ok=True)
        (folder.path / "config.yaml").write_text(configuration)
    except OSError as error:
        return f"cannot make the run folder {folder.path}: {error}; choose another run_dir"
    return ""
