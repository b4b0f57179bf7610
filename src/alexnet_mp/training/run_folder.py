"""Writes a run's folder: configuration, metrics, log and summary; names the places of curves and checkpoints."""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alexnet_mp.checkpoint.retention import remove_unfinished, set_aside
from alexnet_mp.common.disk import flush, write_whole
from alexnet_mp.training.log import LOG, LogFile
from alexnet_mp.training.loggers import INSTALLED, LoggerName, LoggerThread, Values
from alexnet_mp.training.run_lock import RunLock


class RunFolder:
    """The folder of a run. Every process knows its path; the main process alone writes, but for checkpoints.

    A disk that takes nothing stops no training: lines of metrics wait in memory until it does again.
    """

    def __init__(self, path: Path, is_main: bool, loggers: Sequence[LoggerName] | None = None) -> None:
        """`loggers` see what it is told too; None: TensorBoard if it is installed."""
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.curves = path / "plots" / "learning_curve.png"
        self.metrics = path / "metrics.jsonl"
        self.summary = path / "summary.json"
        self._is_main = is_main
        self._logger_names = INSTALLED if loggers is None else loggers
        self._loggers: list[LoggerThread] = []
        self._log: logging.Handler | None = None
        self._metrics_bytes = 0
        self._unwritten = b""

    def open_log(self) -> None:
        """From now on, write `train.log`."""
        if self._is_main:
            self._log = LogFile(self.path / "train.log")
            LOG.addHandler(self._log)

    def begin(self, lock: RunLock, step: int, configuration: str) -> None:
        """From now on, write metrics, and tell the loggers.

        A run that goes on after `step` keeps its metrics up to there: what it did after that, it does again. Newer
        checkpoints that are damaged are set aside, and a `config.yaml` that has changed is kept under another name.
        """
        if not self._is_main:
            return
        remove_unfinished(self.checkpoints)
        for name, problem in lock.damaged.items():
            aside = set_aside(self.checkpoints / name)
            LOG.warning("%s; set aside as %s, going on from %s", problem, aside.name, lock.checkpoint)
        if lock.checkpoint:
            self._keep_configuration(lock.checkpoint, configuration)
        self._keep_metrics(int(lock.description.get("metrics_bytes", 0)))
        self._loggers = [LoggerThread(name, self.path, step, configuration) for name in self._logger_names]

    def append(self, record: dict[str, Any]) -> None:
        """Add one line to `metrics.jsonl`, and tell the loggers its numbers.

        `record` has `kind`, `step` and finite numbers by name.
        """
        if not self._is_main:
            return
        full_before = bool(self._unwritten)
        self._unwritten += (json.dumps(record, allow_nan=False) + "\n").encode()
        try:
            self._write_metrics()
        except OSError as error:
            if not full_before:
                LOG.warning("metrics wait in memory, the disk does not take them: %s", error)
        numbers = {f"{record['kind']}/{key}": value for key, value in record.items() if key not in ("kind", "step")}
        self.show(record["step"], numbers)

    def show(self, step: int, values: Values) -> None:
        """Tell the loggers alone."""
        for logger in self._loggers:
            logger.tell(step, values)

    def flush_metrics(self) -> int:
        """Have the disk hold every line of metrics so far; return their bytes. Raises OSError if it does not."""
        if self._is_main:
            self._write_metrics()
            self._begin_anew_if_gone()
            flush(self.metrics)
        return self._metrics_bytes

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write `summary.json`, whole or not at all. Raises OSError."""
        if self._is_main:
            write_whole(self.summary, (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())

    @contextmanager
    def noting_the_end(self) -> Iterator[None]:
        """Have `train.log` say why the run ended before its time; whoever catches the error tells the console."""
        try:
            yield
        except BaseException as error:
            if self._log:
                words = f"ended: {type(error).__name__}: {error}"
                self._log.handle(LOG.makeRecord(LOG.name, logging.ERROR, "", 0, words, (), None))
            raise

    def close(self) -> None:
        """End the loggers and `train.log`."""
        for logger in self._loggers:
            logger.close()
        if self._log:
            LOG.removeHandler(self._log)
            self._log.close()

    def _keep_configuration(self, checkpoint: str, configuration: str) -> None:
        path, kept = self.path / "config.yaml", self.path / f"config-until-{checkpoint}.yaml"
        # Where one is kept already, the run has gone on from this checkpoint before, and come to no other since: what
        # it then went on with has trained nothing that is left.
        if path.exists() and path.read_bytes() != configuration.encode() and not kept.exists():
            path.replace(kept)
        write_whole(path, configuration.encode())

    def _keep_metrics(self, size: int) -> None:
        self.metrics.touch()
        held = self.metrics.stat().st_size
        if held < size:
            LOG.warning("%s has %d bytes, and had %d when the checkpoint was written", self.metrics, held, size)
        self._metrics_bytes = min(held, size)
        os.truncate(self.metrics, self._metrics_bytes)

    def _write_metrics(self) -> None:
        if not self._unwritten:
            return
        self._begin_anew_if_gone()
        with self.metrics.open("r+b") as file:
            file.truncate(self._metrics_bytes)  # a full disk may have taken half of a line
            file.seek(self._metrics_bytes)
            file.write(self._unwritten)
        self._metrics_bytes += len(self._unwritten)
        self._unwritten = b""

    def _begin_anew_if_gone(self) -> None:
        """Lines that somebody has moved away or cut off are lost to the run, which goes on saving without them."""
        held = self.metrics.stat().st_size if self.metrics.exists() else None
        if held is not None and held >= self._metrics_bytes:
            return
        self.metrics.touch()
        LOG.warning("%s has %d bytes, and had %d; going on with that", self.metrics, held or 0, self._metrics_bytes)
        self._metrics_bytes = held or 0
