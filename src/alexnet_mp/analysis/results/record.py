"""Reads the folder of a run: whatever files it has left, or the record of a finished run, which must be whole."""

import dataclasses
import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from alexnet_mp.common.disk import regular
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.common.text import count
from alexnet_mp.errors import ConfigurationError, explained
from alexnet_mp.parallel.launch import Launch, command_line
from alexnet_mp.training.metrics import EvaluationLine, Metrics, check_whole_metrics, read_metrics

T = TypeVar("T")


@dataclass(frozen=True)
class RunSummary:
    """The keys of `summary.json` that are read; errors are fractions. Older runs lack some of those with a default."""

    network: str
    experiment: str
    placement: str
    world_size: int
    parameters: int
    parameters_per_tower: tuple[int, ...]
    epochs: int
    seconds: float
    images_per_second: float
    top1_error: float
    top5_error: float
    seed: int
    batch_size: int
    precision: str
    device: str
    threads: int
    versions: dict[str, str]
    commit: str | None
    checkpoint: str
    best_checkpoint: str
    command: str | None = None
    steps: int | None = None
    replicas: int = 1
    train_loss: float | None = None
    validation_loss: float | None = None
    crossing_bytes_per_step: int | None = None
    peak_memory_bytes_per_tower: tuple[int, ...] = ()

    @property
    def processes_in_words(self) -> str:
        return f"{count(self.world_size, 'process', 'es')} of {count(self.threads, 'CPU thread')}"

    @property
    def versions_in_words(self) -> str:
        return ", ".join(f"{program} {version}" for program, version in self.versions.items())


@dataclass(frozen=True)
class Evaluated:
    """The keys of `evaluation/*/summary.json` that are read; errors are fractions.

    The softmax of several `checkpoints`, each a folder, was averaged. `data` has the name of the data set, `input` how
    its pixels were scaled; both None if they were not recorded.
    """

    split: str
    views: int
    images: int
    top1_error: float
    top5_error: float
    checkpoints: tuple[str, ...] = ()
    data: dict[str, str | None] | None = None
    input: dict[str, float | str] | None = None
    world_size: int = 1
    command: str | None = None

    @property
    def checkpoint_names(self) -> tuple[str, ...]:
        return tuple(Path(checkpoint).name for checkpoint in self.checkpoints)

    @property
    def checkpoint(self) -> str:
        """The names of its checkpoints, in words."""
        return ", ".join(self.checkpoint_names) or "not recorded"

    @property
    def images_of(self) -> str:
        """The data set, if its name was recorded, and the split."""
        return f"{(self.data or {}).get('name') or ''} {self.split}".strip()


@dataclass(frozen=True)
class RunFiles:
    """What a folder holds of a run that has finished, was interrupted, or goes on.

    `configuration` is its `config.yaml`; `data` says in words what it was trained on; `evaluations` were made of its
    checkpoints afterwards. `missing` says by the name of a file that is not there or damaged why it is not read.
    """

    folder: Path
    summary: RunSummary | None
    configuration: Mapping[str, Any]
    data: str
    metrics: Metrics
    evaluations: tuple[Evaluated, ...]
    missing: Mapping[str, str]

    @property
    def data_name(self) -> str | None:
        """The name of the data set: that of its folder, or its source; None if the configuration has neither."""
        path, source = (_at(self.configuration, "data", key) for key in ("path", "source"))
        return Path(str(path)).name if path else str(source) if source else None


@dataclass(frozen=True)
class RunRecord(RunFiles):
    """A finished run, of which nothing is missing."""

    summary: RunSummary

    @property
    def best(self) -> EvaluationLine:
        """The validation of lowest top-1 error, the first of them."""
        return min(self.metrics.validations, key=lambda validation: validation.top1_error)

    @property
    def recipe(self) -> str:
        return str(_at(self.configuration, "recipe", "name"))

    @property
    def command(self) -> str:
        """The command line that made it: as recorded, or rebuilt from what the summary knows."""
        if self.summary.command is not None:
            return self.summary.command
        known = self.summary
        overrides = [f"experiment={known.experiment}", f"seed={known.seed}"]
        overrides += [f"recipe.epochs={known.epochs}", f"recipe.batch_size={known.batch_size}"]
        launch = Launch(world_size=known.world_size, local_world_size=known.world_size)
        return command_line("launch/train.py", launch, overrides, "run_dir")

    def command_of(self, evaluated: Evaluated) -> str:
        """The command line of an evaluation: as recorded, or rebuilt from what its summary says."""
        if evaluated.command is not None:
            return evaluated.command
        processes = evaluated.world_size
        start = ["torchrun", f"--nproc-per-node={processes}"] if processes > 1 else ["python"]
        paths = [str(self.folder / "checkpoints" / name) for name in evaluated.checkpoint_names]
        checkpoint = paths[0] if len(paths) == 1 else f"[{','.join(paths)}]"
        asked = [f"checkpoint={checkpoint}", f"split={evaluated.split}", f"views={evaluated.views}"]
        scaled = [] if self.is_own_input(evaluated) else [f"input.{k}={v}" for k, v in (evaluated.input or {}).items()]
        return shlex.join([*start, "launch/evaluate.py", *asked, *scaled])

    def is_own_input(self, evaluated: Evaluated) -> bool:
        """Whether an evaluation scaled pixels as this run did, as far as is known."""
        return evaluated.input is None or evaluated.input == _at(self.configuration, "recipe", "input")

    def is_own_data(self, evaluated: Evaluated) -> bool:
        """Whether an evaluation was on the data set that this run was trained on, by its name, as far as is known."""
        return evaluated.data is None or evaluated.data.get("name") == self.data_name

    def at_epoch(self, epoch: int) -> EvaluationLine | None:
        """The validation after `epoch` epochs, if there is one."""
        return next((validation for validation in self.metrics.validations if validation.epoch == epoch), None)


class _OneOfEach(yaml.SafeLoader):
    """Plain YAML without aliases: a run writes none, and a few lines of them stand for more than memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias, which no run writes")
        return super().compose_node(parent, index)


def read_run_files(folder: Path) -> RunFiles:
    """Read whatever the folder of a run holds. Raises ConfigurationError for metrics or a log that cannot be opened."""
    missing: dict[str, str] = {}

    def attempt(name: str, read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except ConfigurationError as error:
            missing[name] = str(error)
            return otherwise

    summary: RunSummary | None = attempt("summary.json", lambda: read_summary(folder), None)
    configuration: Mapping[str, Any] = attempt("config.yaml", lambda: read_configuration(folder / "config.yaml"), {})
    summaries = sorted(folder.glob("evaluation/*/summary.json"))
    evaluations: tuple[Evaluated, ...] = attempt(
        "evaluation", lambda: tuple(_read(Evaluated, path) for path in summaries), ()
    )
    log = folder / "metrics.jsonl"
    metrics = read_metrics(log) if log.is_file() else Metrics()
    data = said_of_data(folder / "train.log", configuration)
    return RunFiles(folder, summary, configuration, data, metrics, evaluations, missing)


def require_finished(run: RunFiles) -> RunRecord:
    """The record of a finished run. Raises ConfigurationError that names what is missing, damaged or of another run."""
    for why in run.missing.values():
        raise ConfigurationError(why)
    assert run.summary is not None
    check_whole_metrics(run.metrics, run.folder / "metrics.jsonl")
    ends, last = run.summary, run.metrics.validations[-1]
    if (last.epoch, last.top1_error) != (ends.epochs, ends.top1_error):
        raise ConfigurationError(
            f"{run.folder}: summary.json ends at epoch {ends.epochs} with top-1 error {ends.top1_error}, and "
            f"metrics.jsonl at epoch {last.epoch} with {last.top1_error}; they are of different runs"
        )
    return RunRecord(**vars(run))


def read_run(folder: Path) -> RunRecord:
    """Read the folder of a finished run; raises ConfigurationError as `require_finished` does."""
    return require_finished(read_run_files(folder))


def read_summary(folder: Path) -> RunSummary:
    """What a finished run says of itself. Raises ConfigurationError if `summary.json` is damaged or not there."""
    if not (folder / "summary.json").is_file():
        why = "a run that has not finished" if (folder / "metrics.jsonl").is_file() else "not the folder of a run"
        raise ConfigurationError(f"{folder} is {why}: it has no summary.json")
    return _read(RunSummary, folder / "summary.json")


def read_configuration(path: Path) -> Mapping[str, Any]:
    """A run's `config.yaml` as plain values. Raises ConfigurationError if it is damaged or not there."""
    with explained(f"{path} is not YAML", yaml.YAMLError, ValueError, RecursionError):
        configuration = _OneOfEach(_text(path)).get_single_data()
    if not isinstance(configuration, Mapping):
        raise ConfigurationError(f"{path} is not a configuration")
    return configuration


def _read(cls: type[T], path: Path) -> T:
    """The dataclass `cls` from those keys of a JSON file that it has; the others are for other readers."""
    text = _text(path)
    with explained(str(path), ConfigurationError, ValueError, RecursionError):
        mapping = json.loads(text)
        if isinstance(mapping, Mapping):
            known = {field.name for field in dataclasses.fields(cast(Any, cls))}
            mapping = {name: value for name, value in mapping.items() if name in known}
        return from_mapping(cls, mapping, "")


def _text(path: Path) -> str:
    with explained(f"cannot read {path}", OSError, UnicodeDecodeError):
        return regular(path).read_text("utf-8")


def said_of_data(log: Path, configuration: Mapping[str, Any]) -> str:
    """What the run said of its data when it started, or else their source and folder by its configuration."""
    said = re.search(r"^data {2,}(.+)$", _text(log), re.MULTILINE) if log.is_file() else None
    if said:
        return said[1]
    path = _at(configuration, "data", "path")
    return f"{_at(configuration, 'data', 'source')} {path}" if path else str(_at(configuration, "data", "source"))


def _at(configuration: Mapping[str, Any], group: str, key: str) -> object:
    inner = configuration.get(group)
    return inner.get(key) if isinstance(inner, Mapping) else None
