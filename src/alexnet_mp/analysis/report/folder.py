"""Reads the folder of a run for its report, and says in words what is missing there."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from alexnet_mp.analysis.results.record import RunFiles, RunRecord, RunSummary, read_run_files, require_finished
from alexnet_mp.common.disk import regular
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.table import Network, parse_network
from alexnet_mp.training.recipe import BatchScaling, Recipe

T = TypeVar("T")

# The rules that depend on the number of replicas.
_SCALING: dict[str, BatchScaling] = {"linear": "linear", "square_root": "square_root"}
_PARTS = ("config.yaml", "metrics.jsonl", "summary.json", "checkpoints")


@dataclass(frozen=True)
class ReportedRun(RunFiles):
    """What a folder holds of a run. `record` is there for a finished run; `lacking` says what else is not, and why.

    There is a `summary` without a `record` if the run ended once and was continued since. `said` has lines of the log:
    what the configuration leaves open, and why the run ended early.
    """

    record: RunRecord | None
    network: Network | None
    recipe: Recipe | None
    said: Mapping[str, str]
    lacking: list[str]

    @property
    def experiment(self) -> str:
        """The experiment's name; the folder's if the configuration has none."""
        return str(self.configuration.get("experiment_name") or self.folder.resolve().name)

    @property
    def batch_size(self) -> int | None:
        """The global batch."""
        return self.summary.batch_size if self.summary else self.recipe.batch_size if self.recipe else None


def read_folder(folder: Path) -> ReportedRun:
    """Read the folder of a run that has finished, was interrupted, or goes on.

    Raises ConfigurationError for a folder that has nothing of a run.
    """
    if not any((folder / part).exists() for part in _PARTS):
        raise ConfigurationError(f"{folder} is not the folder of a run: it has none of {', '.join(_PARTS)}")
    files = read_run_files(folder)
    configuration, metrics, summary = files.configuration, files.metrics, files.summary
    lacking = []
    if "config.yaml" in files.missing:
        lacking.append(f"{files.missing['config.yaml']}; so the configuration is not shown.")
    if metrics.unread:
        lacking.append(f"Lines of metrics.jsonl that no run writes, left out: {len(metrics.unread)}.")
    if not metrics.steps:
        lacking.append("There is no training line in metrics.jsonl; so there are no curves of loss and throughput.")
    if not metrics.validations:
        lacking.append("There is no validation in metrics.jsonl; so there is no curve of the error.")
    if not (folder / "summary.json").is_file():
        lacking.append("The run has not finished: it has no summary.json. The page shows how far it came.")
    elif "summary.json" in files.missing:
        lacking.append(f"{files.missing['summary.json']}; so the end of the run is not shown.")
    record = network = recipe = None
    if summary:
        record = attempt(lacking, lambda: require_finished(files), "no number is set beside published ones")
    logged = _last_log_lines(folder / "train.log")
    replicas = _replicas(summary, logged)
    if configuration:
        network = attempt(lacking, lambda: _network(configuration), "the network is known from its checkpoint alone")
        recipe = attempt(lacking, lambda: _recipe(configuration, replicas), "the recipe is not shown")
    if recipe and replicas is None and configuration.get("batch_scaling") in _SCALING:
        lacking.append(
            f"Nothing says on how many replicas it ran; so the batch is one replica's, and with batch_scaling="
            f"{configuration['batch_scaling']} the learning rates shown here are not yet scaled by their number."
        )
    return ReportedRun(**vars(files), record=record, network=network, recipe=recipe, said=logged, lacking=lacking)


def attempt(missing: list[str], read: Callable[[], T], consequence: str) -> T | None:
    """What `read` returns; None if it raises ConfigurationError, and then `missing` gets the error's consequence."""
    try:
        return read()
    except ConfigurationError as error:
        missing.append(f"{error}; so {consequence}.")
        return None


def _network(configuration: Mapping[str, Any]) -> Network:
    network = parse_network(configuration.get("network"))
    towers = configuration.get("towers")
    return network.cut_into(towers) if isinstance(towers, int) else network


def _recipe(configuration: Mapping[str, Any], replicas: int | None) -> Recipe:
    """The recipe in force on so many replicas; if their number is unknown, the recipe as configured."""
    recipe = from_mapping(Recipe, configuration.get("recipe"), "recipe")
    rule = _SCALING.get(str(configuration.get("batch_scaling")))
    return recipe if rule is None or replicas is None else recipe.scaled(rule, replicas)


def _replicas(summary: RunSummary | None, logged: Mapping[str, str]) -> int | None:
    """How many replicas a run had, by its summary, or else by the log of its last start."""
    found = re.search(r"\), (\d{1,9}) replicas?; process ", logged.get("placement", ""))
    replicas = summary.replicas if summary else int(found[1]) if found else 0
    return replicas if replicas > 0 else None


def _last_log_lines(log: Path) -> dict[str, str]:
    """The last line of each kind that the report repeats, by its first word; no `ended` of an earlier start."""
    try:
        text = regular(log).read_text("utf-8", "replace")
    except OSError:
        return {}
    said: dict[str, str] = {}
    for word, words in re.findall(r"^(placement|devices|compile|ended)[: ] *(.+)$", text, re.MULTILINE):
        if word == "placement":  # every start of a run says it
            said.pop("ended", None)
        said[word] = words
    return said
