"""Reads `metrics.jsonl` back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_mp.common.disk import regular
from alexnet_mp.errors import ConfigurationError, explained

# More than any number of a run can be, and less than what a chart cannot write.
_LARGEST = 1e15


@dataclass(frozen=True)
class Step:
    """A training line; `epoch` counts from 1, and is that which the step belongs to."""

    step: int
    epoch: int
    loss: float
    learning_rate: float | None
    images_per_second: float | None


@dataclass(frozen=True)
class EvaluationLine:
    """An evaluation after `epoch` epochs, of the images held out or of the training images; errors are fractions."""

    step: int
    epoch: int
    loss: float
    top1_error: float
    top5_error: float


@dataclass(frozen=True)
class Metrics:
    """`training` is empty unless the run evaluated its training images too.

    `unread` says of every line that no run writes which it is and why. A run that goes on, or was killed, may leave
    half of one at the end.
    """

    steps: tuple[Step, ...] = ()
    validations: tuple[EvaluationLine, ...] = ()
    training: tuple[EvaluationLine, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def steps_per_epoch(self) -> float | None:
        """From the last validation; None before the first."""
        last = self.validations[-1] if self.validations else None
        return last.step / last.epoch if last and last.epoch and last.step else None


def read_metrics(path: Path) -> Metrics:
    """Whatever of `path` a run has written. Raises ConfigurationError if it cannot be read at all."""
    with explained(f"cannot read {path}"):
        text = regular(path).read_text("utf-8", "replace")
    steps: list[Step] = []
    evaluations: dict[str, list[EvaluationLine]] = {"validation": [], "training": []}
    unread: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            record = _object(line)
            kind = record.get("kind")
            if not isinstance(kind, str):
                raise ValueError("it has no kind")
            if kind == "train":
                steps.append(_step(record))
            elif kind in evaluations:
                evaluations[kind].append(_evaluation(record))
        except (ValueError, RecursionError) as error:
            unread.append(f"line {number}: {error}")
    return Metrics(tuple(steps), tuple(evaluations["validation"]), tuple(evaluations["training"]), tuple(unread))


def check_whole_metrics(metrics: Metrics, path: Path) -> None:
    """Raise ConfigurationError unless `path` is of a finished run: it has a validation, and a run writes every line."""
    if metrics.unread:
        raise ConfigurationError(f"{path} is damaged: {metrics.unread[0]}")
    if not metrics.validations:
        raise ConfigurationError(f"{path} has no validation line")


def _object(line: str) -> Mapping[str, Any]:
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("it is no object")
    return record


def _step(record: Mapping[str, Any]) -> Step:
    rates = (_number(record, key) if key in record else None for key in ("learning_rate", "images_per_second"))
    return Step(_count(record, "step"), _count(record, "epoch"), _number(record, "loss"), *rates)


def _evaluation(record: Mapping[str, Any]) -> EvaluationLine:
    errors = (_number(record, key) for key in ("loss", "top1_error", "top5_error"))
    return EvaluationLine(_count(record, "step"), _count(record, "epoch"), *errors)


def _number(record: Mapping[str, Any], key: str) -> float:
    value = record.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST:  # NaN is not
        return float(value)
    raise ValueError(f"its {key} is not a finite number" if key in record else f"it has no {key}")


def _count(record: Mapping[str, Any], key: str) -> int:
    value = _number(record, key)
    if value < 0 or value != int(value):
        raise ValueError(f"its {key} is {value:g}, not a count")
    return int(value)
