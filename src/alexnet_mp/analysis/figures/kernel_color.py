"""Measures whether towers specialize in color, in the first kernels of one run and in a study of several runs."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from alexnet_mp.analysis.figures.kernels import (
    Separation,
    colorfulness,
    initial_kernels,
    separation,
)
from alexnet_mp.analysis.results.groups import what_trains
from alexnet_mp.analysis.results.markdown import code, text
from alexnet_mp.checkpoint.files import load_checkpoint
from alexnet_mp.checkpoint.retention import newest_checkpoint
from alexnet_mp.common.text import markdown_table, printable
from alexnet_mp.errors import ConfigurationError, explained
from alexnet_mp.network.rows import Classifier, reads_of
from alexnet_mp.network.table import Network, parse_network
from alexnet_mp.training.kernel_sheet import first_layer_kernels

SIGNIFICANT = 0.05

_HOW_TO_READ = """\
A kernel's colorfulness is the share of its energy off the gray axis: 0 for equal color planes, 1 for planes that add
up to nothing, 2/3 on average for noise. AUC is the probability that a kernel of the more colorful tower is more
colorful than one of the other (0.5: not apart, 1: wholly), p that of a permutation test of it. Kernels are living
unless their norm is under 5 % of the largest."""

_SINCE_START = "\nThe initial weights are taken off: this is of what training has added to the kernels."


@dataclass(frozen=True, eq=False)
class RunKernels:
    """The first layer of a run's newest checkpoint: `kernels` of every tower, and how colorful each of them is.

    With `since_start` both are of what training has added. `colorfulness` has one tensor [kernels] a tower, NaN for
    dead ones, and is empty if the network reads no colors. `separation` is None then, for one tower, and if all
    kernels of a tower are dead. `top1_error` is that of the last validation, None before the first. `trains` is what
    runs of one group share of their configurations.
    """

    folder: str
    checkpoint: str
    experiment: str
    network: Network
    trains: Mapping[str, Any]
    seed: int
    epochs: int
    since_start: bool
    top1_error: float | None
    kernels: list[Tensor]
    colorfulness: list[Tensor]
    separation: Separation | None

    @property
    def group(self) -> str:
        """The name of its group: its experiment, its network if that is called otherwise, and where the towers meet."""
        same = self.network.name == self.experiment
        name = self.experiment if same else f"{self.experiment}, {self.network.name}"
        meets = [
            layer for layer, row in self.network.rows.items() if isinstance(row, Classifier) or reads_of(row) == "both"
        ]
        return f"{name}, towers meet at {', '.join(meets)}"


@dataclass(frozen=True)
class KernelGroup:
    """Runs that differ in their seed alone, by seed, and in how many the towers are apart at p < SIGNIFICANT."""

    name: str
    runs: tuple[RunKernels, ...]

    @property
    def separated(self) -> int:
        return sum(run.separation is not None and run.separation.p_value < SIGNIFICANT for run in self.runs)


def read_kernels(run: str, checkpoint: Path | None = None, since_start: bool = False) -> RunKernels:
    """The kernels of a run's newest whole checkpoint, or of the one named.

    With `since_start` the initial weights, known by the seed, are taken off: what is left is what training has added.
    After a short run from large initial weights most of a kernel is still the noise that it began as, which is
    colorful alike on all towers.

    Raises ConfigurationError if there is none, or it is damaged.
    """
    folder = checkpoint or newest_checkpoint(Path(run) / "checkpoints").folder
    if folder is None:
        raise ConfigurationError(f"{run} has no whole checkpoint, so no kernels to draw")
    state, description = load_checkpoint(folder)
    with explained(f"checkpoint {folder}", ConfigurationError, AttributeError, LookupError, TypeError, ValueError):
        network = parse_network(description["network"])
        progress = description.get("progress") or {}
        validation = progress.get("validation") or {}
        configuration = description.get("configuration") or {}
        kernels = first_layer_kernels(state, network.first_layer)
        if since_start:
            _check_drawn_by_seed(description, configuration, network.first_layer)
            began = initial_kernels(network, int(description["seed"]))
            kernels = [now - before for now, before in zip(kernels, began, strict=True)]
        colors = colorfulness(kernels) if kernels[0].shape[1] == 3 else []
        living = all(bool((~values.isnan()).any()) for values in colors)
        return RunKernels(
            folder=run,
            checkpoint=folder.name,
            experiment=str(configuration.get("experiment_name", network.name)),
            network=network,
            trains=what_trains(configuration),
            seed=int(description.get("seed", 0)),
            epochs=int(progress.get("epoch", 0)),
            since_start=since_start,
            top1_error=validation.get("top1_error"),
            kernels=kernels,
            colorfulness=colors,
            separation=separation(colors) if len(colors) > 1 and living else None,
        )


def _check_drawn_by_seed(description: Mapping[str, Any], configuration: Mapping[str, Any], layer: str) -> None:
    """Raise ConfigurationError unless a run's first layer is known to have begun with the weights of its seed."""
    if "seed" not in description:
        raise ConfigurationError(
            "since_start=true: it has no seed, which would tell the weights that it began with (a checkpoint that was "
            "converted from another file has none); leave since_start away"
        )
    initial = configuration.get("initial_weights") or {}
    if initial.get("checkpoint") is not None and layer not in (initial.get("but") or ()):
        raise ConfigurationError(
            f"since_start=true: {layer} began with the weights of {initial['checkpoint']} and not with those of the "
            "seed; leave since_start away"
        )


def group_runs(folders: Sequence[str], since_start: bool = False) -> list[KernelGroup]:
    """Read runs and group them, in the order of each group's first run; `since_start` as in `read_kernels`.

    Groups that would be called alike, because an ablation changed a row, the recipe or what crosses, are told by the
    folder of their first run too. Raises ConfigurationError for a run without towers to compare, and one that is named
    twice or whose seed its group has already.
    """
    if len({Path(folder).resolve() for folder in folders}) < len(folders):
        raise ConfigurationError("a run is named twice in runs")
    groups: dict[str, list[RunKernels]] = {}
    for folder in folders:
        run = read_kernels(folder, since_start=since_start)
        if run.separation is None:
            raise ConfigurationError(
                f"{folder} has no towers to compare: {run.network.towers} tower(s) that read {run.network.image[0]} "
                "channel(s), and living kernels on every tower are needed"
            )
        shared = json.dumps([run.group, run.network.to_mapping(), run.trains], sort_keys=True, default=str)
        alike = groups.setdefault(shared, [])
        for other in alike:
            if other.seed == run.seed:
                raise ConfigurationError(f"{other.folder} and {folder} are both {run.group}, seed {run.seed}")
        alike.append(run)
    names = Counter(group[0].group for group in groups.values())
    found = []
    for first, *others in groups.values():
        name = f"{first.group}, as {first.folder}" if names[first.group] > 1 else first.group
        found.append(KernelGroup(name, tuple(sorted([first, *others], key=lambda run: run.seed))))
    return found


def kernel_values(run: RunKernels) -> dict[str, Any]:
    """A run's numbers as plain values; a dead kernel's colorfulness is null."""
    return {
        "run": run.folder,
        "checkpoint": run.checkpoint,
        "experiment": run.experiment,
        "network": run.network.name,
        "seed": run.seed,
        "epochs": run.epochs,
        "initial_weights_taken_off": run.since_start,
        "top1_error": run.top1_error,
        "separation": None if run.separation is None else asdict(run.separation),
        "colorfulness": [[None if v != v else v for v in tower.tolist()] for tower in run.colorfulness],
    }


def kernel_study_values(groups: Sequence[KernelGroup]) -> dict[str, Any]:
    """The numbers of all runs, group by group."""
    return {
        "significant_below": SIGNIFICANT,
        "groups": [
            {"name": group.name, "runs_separated": group.separated, "runs": [kernel_values(run) for run in group.runs]}
            for group in groups
        ],
    }


def group_in_words(group: KernelGroup) -> str:
    """Says in how many runs the towers are apart."""
    by_chance = SIGNIFICANT * len(group.runs)
    return (
        f"{printable(group.name)}: apart at p < {SIGNIFICANT:g} in {group.separated} of {len(group.runs)} runs "
        f"(by chance {by_chance:.2g} are to be expected)."
    )


def kernel_study_page(groups: Sequence[KernelGroup], command: str) -> str:
    """A table of every run, and in how many of each group the towers are apart; `command` makes it again."""
    rows = []
    for name, run, found in ((group.name, run, run.separation) for group in groups for run in group.runs):
        assert found is not None
        error = "-" if run.top1_error is None else f"{100 * run.top1_error:.2f}"
        medians = " / ".join(f"{median:.3f}" for median in found.medians)
        apart = [f"{found.difference:+.3f}", f"{found.auc:.3f}", f"{found.p_value:.2g}"]
        living = " / ".join(map(str, found.counted))
        rows.append([text(name), str(run.seed), str(run.epochs), error, medians, *apart, living])
    header = ["runs", "seed", "epochs", "top-1 error, %", "median by tower", "difference", "AUC", "p", "living kernels"]
    parts = [
        "# Colorfulness of the first layer's kernels",
        f"Made from checkpoints by {code(command)}; not written by hand.",
        _HOW_TO_READ + _SINCE_START * groups[0].runs[0].since_start,
        "\n".join(f"- {text(group_in_words(group))}" for group in groups),
        markdown_table([header, *rows]),
    ]
    return "\n\n".join(parts) + "\n"


def separation_in_words(run: RunKernels) -> str:
    """How far apart the towers are, in one line for a picture."""
    found = run.separation
    if found is None:
        return "colorfulness: nothing to compare"
    medians = " / ".join(f"{median:.2f}" for median in found.medians)
    return (
        f"colorfulness, medians {medians}: tower {found.more} above tower {found.less}, AUC {found.auc:.2f}, "
        f"p = {found.p_value:.2g}"
    )
