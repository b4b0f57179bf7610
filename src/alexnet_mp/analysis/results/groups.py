"""Groups runs that differ in their seed alone, and compares what they found with published numbers."""

import fnmatch
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from alexnet_mp.analysis.results.record import Evaluated, RunRecord, read_run
from alexnet_mp.common.text import count
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.training.metrics import EvaluationLine

Unit = Literal["top-1 error, %", "top-5 error, %", "top-1 accuracy, %", "top-5 accuracy, %"]

# A name, or on what machine and how a run computes, and its seed, over which a group is made.
_NOT_WHAT_IT_TRAINS = (
    "experiment_name",
    "dry_run",
    "seed",
    "run_dir",
    "placement",
    "device",
    "threads",
    "loader",
    "log_every_steps",
    "keep_checkpoints",
    "checkpoint_minutes",
    "checkpoint_steps",
    "training_error",
    "timeout_seconds",
)


@dataclass(frozen=True)
class Reference:
    """A published number to compare runs with.

    `at_epoch` compares the validation after that epoch, null the last; `views` compares an evaluation of the last
    checkpoint with so many views in place of the run's own validation, which has one.
    """

    what: str
    value: float
    unit: Unit
    source: str
    at_epoch: int | None = None
    views: int | None = None

    @property
    def after(self) -> str:
        """What of a run it is compared with: `last epoch`, `epoch 90, 10 views`."""
        epoch = "last epoch" if self.at_epoch is None else f"epoch {self.at_epoch}"
        return epoch if self.views is None else f"{epoch}, {count(self.views, 'view')}"


@dataclass(frozen=True)
class PublishedResult:
    """What is known of an experiment before it runs: a note for its reader, and numbers to compare with."""

    note: str = ""
    references: tuple[Reference, ...] = ()


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in their seed alone, by seed."""

    runs: tuple[RunRecord, ...]

    @property
    def first(self) -> RunRecord:
        return self.runs[0]

    @property
    def median_run(self) -> RunRecord:
        """The run with the median top-1 error, the lower one of two."""
        return sorted(self.runs, key=lambda run: run.summary.top1_error)[(len(self.runs) - 1) // 2]


@dataclass(frozen=True)
class Spread:
    """Median and range of a number over runs."""

    median: float
    lowest: float
    highest: float
    count: int

    def in_words(self, write: Callable[[float], str]) -> str:
        """`12.34 (12.00 to 13.00)`, each number as `write` writes it; of one run that alone."""
        median, lowest, highest = map(write, (self.median, self.lowest, self.highest))
        return median if self.count == 1 else f"{median} ({lowest} to {highest})"


@dataclass(frozen=True)
class Measure:
    """A number of every run: what a table calls it, and how it is written there, times `factor`.

    `value` is None for a run that does not have it.
    """

    shown: str
    value: Callable[[RunRecord], float | None]
    form: str = ".2f"
    factor: float = 1.0

    def text(self, value: float | None) -> str:
        """A cell with a value of this measure."""
        return "-" if value is None else f"{self.factor * value:{self.form}}"

    def spread(self, runs: Sequence[RunRecord]) -> Spread | None:
        """Median and range over those runs that have it, if there is one."""
        known = [value for run in runs if (value := self.value(run)) is not None]
        return spread(known) if known else None

    def median_and_range(self, runs: Sequence[RunRecord]) -> tuple[str, str]:
        """Two cells, of those runs that have it."""
        found = self.spread(runs)
        if found is None:
            return "-", "-"
        return self.text(found.median), f"{self.text(found.lowest)} to {self.text(found.highest)}"


TOP1_ERROR = Measure("top-1 error, %", lambda run: run.summary.top1_error, factor=100)
TOP5_ERROR = Measure("top-5 error, %", lambda run: run.summary.top5_error, factor=100)
MINUTES = Measure("minutes", lambda run: run.summary.seconds / 60, ".1f")
IMAGES_PER_SECOND = Measure("images/s", lambda run: run.summary.images_per_second, ".0f")


def what_trains(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs must share to count as one group: all of a configuration but the keys known not to matter.

    A key of another version, or of somebody's own, counts as one that matters.
    """
    return {key: value for key, value in configuration.items() if key not in _NOT_WHAT_IT_TRAINS}


def spread(values: Sequence[float]) -> Spread:
    """`values` are one or more."""
    return Spread(statistics.median(values), min(values), max(values), len(values))


def read_groups(folders: Sequence[str]) -> list[RunGroup]:
    """Read runs and group them, in the order of each group's first run; groups of one experiment follow each other.

    Raises ConfigurationError for a folder that is named twice, and for what `read_run` raises it.
    """
    if len({Path(folder).resolve() for folder in folders}) < len(folders):
        raise ConfigurationError("a run is named twice in runs")
    runs: dict[str, dict[str, list[RunRecord]]] = {}
    for folder in folders:
        run = read_run(Path(folder))
        ran = run.summary
        where = [ran.placement, ran.world_size, ran.device, ran.threads, ran.versions]
        shared = json.dumps([what_trains(run.configuration), where], sort_keys=True, default=str)
        runs.setdefault(ran.experiment, {}).setdefault(shared, []).append(run)
    return [
        RunGroup(tuple(sorted(group, key=lambda run: run.summary.seed)))
        for groups in runs.values()
        for group in groups.values()
    ]


def published_of(
    experiment: str, published: Mapping[str, PublishedResult], command: str | None = None
) -> PublishedResult:
    """What is published for an experiment: under its name, or the first pattern that fits it (`imagenet_*`).

    If the run's `command` takes an ablation, the experiment's numbers are not its own, and only the note is left.
    """
    pattern = next((name for name in published if fnmatch.fnmatchcase(experiment, name)), None)
    found = published.get(experiment) or (PublishedResult() if pattern is None else published[pattern])
    return replace(found, references=()) if " ablation=" in (command or "") else found


def compare_with_reference(group: RunGroup, reference: Reference) -> Spread | str:
    """What the group's runs have for a reference, in its unit, or why they have nothing."""
    values = [_measure(found, reference.unit) for run in group.runs if (found := _counterpart(run, reference))]
    if values:
        return spread(values)
    if reference.views is not None:
        return f"not evaluated with {reference.views} views"
    return f"no validation at epoch {reference.at_epoch}"


def _counterpart(run: RunRecord, reference: Reference) -> EvaluationLine | Evaluated | None:
    """A validation of training, or an evaluation of the run's last checkpoint alone, on images held out of training."""
    if reference.views is None:
        return run.metrics.validations[-1] if reference.at_epoch is None else run.at_epoch(reference.at_epoch)
    for found in run.evaluations:
        alone = found.checkpoint_names in ((), (run.summary.checkpoint,))
        as_trained = run.is_own_input(found) and run.is_own_data(found)
        if alone and as_trained and found.views == reference.views and found.split != "train":
            return found
    return None


def _measure(found: EvaluationLine | Evaluated, unit: Unit) -> float:
    error = found.top1_error if unit.startswith("top-1") else found.top5_error
    return 100 * (1 - error if "accuracy" in unit else error)
