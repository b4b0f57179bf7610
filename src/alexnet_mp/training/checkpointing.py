"""Schedules checkpoints and agrees across ranks whether each one succeeded."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alexnet_mp.checkpoint.retention import checkpoint_name, prune, remove_unfinished
from alexnet_mp.checkpoint.writer import CheckpointWriter
from alexnet_mp.errors import NotSaved
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.training.config import TrainSettings
from alexnet_mp.training.log import LOG
from alexnet_mp.training.run_folder import RunFolder
from alexnet_mp.training.state import TrainingState


@dataclass
class SaveTiming:
    """Seconds for which saves held a process's training, by part, and for which they were written beside it.

    `metrics` has what comes before the copy too: waiting for the checkpoint before, and for the other processes.
    """

    metrics: float = 0.0
    copy: float = 0.0
    writing: float = 0.0

    @property
    def held(self) -> float:
        return self.metrics + self.copy


SECONDS_TO_CLOSE = 2.0  # for the files of other processes, where the run ends early
_NOT_NOW = -1  # nothing is to be written


class Checkpointer:
    """Saves a run's checkpoints. Its processes save at the same steps; those of replica 0 write.

    A checkpoint that cannot be written is tried again, with the state of then, when the next one is due.
    """

    def __init__(
        self,
        settings: TrainSettings,
        mesh: Mesh,
        state: TrainingState,
        folder: RunFolder,
        about: Mapping[str, Any],
        newest: str = "",
    ) -> None:
        """`about` is what every checkpoint of this run says of it; `newest` the one that the run goes on from."""
        self._mesh = mesh
        self._state = state
        self._folder = folder
        self._about = dict(about)
        self._steps = settings.checkpoint_steps
        self._seconds = 60 * settings.checkpoint_minutes
        self._keep = settings.keep_checkpoints
        self._saved_at = time.monotonic()
        self._best = self._best_of_next = self._best_now()
        self._problem = ""
        self.timing = SaveTiming()
        self._started = ""
        self._one_has_failed = False
        self.newest = newest
        self._writer = CheckpointWriter(
            folder.checkpoints,
            settings.network,
            settings.timeout_seconds,
            self._prune if mesh.placement.is_main else None,
        )

    def is_due(self, step: int) -> bool:
        """True if this process says that it is time; any one's word is enough."""
        if self._steps and step % self._steps == 0:
            return True
        return self._mesh.placement.is_main and time.monotonic() - self._saved_at >= self._seconds

    def has_failed(self) -> bool:
        """True, once, where this process could not write its part of the last checkpoint; all must be told."""
        return self._settle(wait=False)

    def abort(self) -> None:
        """A process could not write its part: this one need not wait for it, and the checkpoint is none."""
        self._one_has_failed = True
        self._writer.abandon()

    def save(self) -> None:
        """Start the next checkpoint, when the last is done; every process calls it at the same step."""
        began = time.monotonic()
        self.wait()
        self._saved_at = time.monotonic()
        progress = self._state.progress
        name = checkpoint_name(progress.step, validated=progress.samples_of_epoch == 0)
        metrics_bytes = self._mesh.from_main(self._prepare(name) if self._mesh.placement.is_main else _NOT_NOW)
        prepared = time.monotonic()
        if metrics_bytes != _NOT_NOW:
            self._started, self._one_has_failed = name, False
            self._best_of_next = self._best_now()
        if metrics_bytes != _NOT_NOW and self._mesh.placement.replica == 0:
            self._writer.start(
                name,
                self._state.model.state_dict(),
                self._state.momentum(),
                {**self._about, **self._state.described(), "metrics_bytes": metrics_bytes},
            )
        self.timing.metrics += prepared - began
        self.timing.copy += time.monotonic() - prepared

    def wait(self) -> None:
        """Until every process is done with the last checkpoint; every process calls it."""
        while True:
            failed = self._settle(wait=False)
            busy, any_failed = self._mesh.sum_over_processes([float(self._writer.is_busy), float(failed)])
            if any_failed:
                self.abort()
            if not busy:
                break
            time.sleep(0.002)
        # Only now: a process that has written its part does not know whether those of the others came.
        if self._started and not self._one_has_failed:
            self.newest, self._best = self._started, self._best_of_next
        self._started = ""

    def finish(self) -> None:
        """Wait for the last checkpoint. Raises NotSaved, in every process, if it is not on the disk."""
        self.wait()
        problems = self._mesh.sum_over_processes([float(bool(self._problem))])
        if problems[0]:
            held = f"the newest checkpoint is {self.newest}" if self.newest else "there is no checkpoint"
            raise NotSaved(f"the last state could not be saved ({self._problem or 'see rank 0'}); {held}")

    def close(self) -> None:
        """Let what is being written end, without asking the other processes, which may be gone."""
        self._writer.close(SECONDS_TO_CLOSE)
        self._settle(wait=True)

    def _prepare(self, name: str) -> int:
        """What the main process does before any writes: the bytes of metrics that belong to `name`, or _NOT_NOW."""
        if name == self.newest:  # asked to stop twice in one validation: this very state is saved already
            self._problem = ""
            return _NOT_NOW
        remove_unfinished(self._folder.checkpoints)
        try:
            return self._folder.flush_metrics()
        except OSError as error:
            self._failed(name, str(error))
            return _NOT_NOW

    def _prune(self, name: str) -> None:
        # The best that this checkpoint knows: training, which goes on meanwhile, may have validated a better one, which
        # is not saved yet.
        prune(self._folder.checkpoints, self._keep, best=self._best_of_next[1])

    def _settle(self, wait: bool) -> bool:
        """Take note of what became of the last checkpoint, if that is known; True if it failed."""
        outcome = self._writer.outcome(wait)
        if outcome is None:
            return False
        self.timing.writing += outcome.seconds
        if outcome.problem:
            self._failed(outcome.name, outcome.problem)
            return True
        self._problem = ""
        return False

    def _failed(self, name: str, problem: str) -> None:
        self._problem = problem
        if self._state.progress.best_checkpoint == name:  # the best so far is the one before
            self._state.progress.best_error, self._state.progress.best_checkpoint = self._best
        # Critical, so that a process other than the main one is heard too.
        LOG.critical(
            "rank %d could not save %s: %s; the newest checkpoint is %s; trying again when the next is due",
            self._mesh.placement.launch.rank,
            name,
            problem,
            self.newest or "none",
        )

    def _best_now(self) -> tuple[float | None, str]:
        return self._state.progress.best_error, self._state.progress.best_checkpoint
