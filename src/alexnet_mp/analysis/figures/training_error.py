"""Compares how many epochs ReLU and tanh take to a training error (the paper's Figure 1): numbers, page, picture."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.ticker import MaxNLocator, PercentFormatter

from alexnet_mp.analysis.results.groups import what_trains
from alexnet_mp.analysis.results.markdown import code, text
from alexnet_mp.analysis.results.record import RunRecord, read_run
from alexnet_mp.common.drawing import BLUE, GREEN, INK, RUST, drawing
from alexnet_mp.common.schema import differences
from alexnet_mp.common.text import count, markdown_table
from alexnet_mp.errors import ConfigurationError, explained
from alexnet_mp.network.rows import Relu, Tanh
from alexnet_mp.network.table import parse_network

LINE = 0.25  # paper §3.1, Figure 1
PAPER_RATIO = 6.0  # "six times faster", there
_STYLES = {"ReLU": ("-", BLUE), "tanh": ("--", RUST)}  # solid and dashed, as the paper draws them
_NAMES = {Relu: "ReLU", Tanh: "tanh"}


@dataclass(frozen=True)
class TrainingCurve:
    """A run's error on the training split, a fraction, after epoch 0, 1, 2 ...; after 0 that of guessing.

    `activation` is `ReLU`, `tanh`, or both, in words; `none` for a network without.
    `epochs_to_line` is when the curve first is at `line` or below, linear between two epochs; None if it never is.
    """

    run: str
    activation: str
    network: str
    seed: int
    learning_rate: float
    errors: tuple[float, ...]
    line: float
    epochs_to_line: float | None

    @property
    def epochs(self) -> int:
        return len(self.errors) - 1


@dataclass(frozen=True)
class Ratio:
    """How many times as many epochs tanh takes to the line as ReLU, at one seed.

    If tanh does not come to the line, `ratio` is None, and `at_least` is the ratio if it came to the line right after
    its last epoch. Both are None if ReLU does not come to it.
    """

    seed: int
    ratio: float | None
    at_least: float | None


@dataclass(frozen=True)
class Comparison:
    """The curves of all runs, and tanh beside ReLU at every seed that both have; none without both activations."""

    line: float
    curves: tuple[TrainingCurve, ...]
    ratios: tuple[Ratio, ...]

    @property
    def found(self) -> list[float]:
        """The ratios of the seeds at which both came to the line."""
        return [ratio.ratio for ratio in self.ratios if ratio.ratio is not None]


def epochs_to(line: float, errors: Sequence[float]) -> float | None:
    """After how many epochs `errors`, those after epoch 0, 1, 2 ..., first are at `line`; linear between two epochs."""
    if errors[0] <= line:
        return 0.0
    for epoch, (before, after) in enumerate(pairwise(errors)):
        if after <= line:
            return epoch + (before - line) / (before - after)
    return None


def compare_activations(folders: Sequence[str], line: float) -> Comparison:
    """Read finished runs that were trained with `training_error=true`.

    Raises ConfigurationError for a run that cannot be read or has no training errors, and if two of one activation
    differ in more than their seed, or in nothing.
    """
    first: dict[str, RunRecord] = {}
    curves: list[TrainingCurve] = []
    for folder in folders:
        run = read_run(Path(folder))
        curve = _curve(run, folder, line)
        alike = first.setdefault(curve.activation, run)
        different = differences(_what_trains(alike), _what_trains(run), "")
        if different:
            raise ConfigurationError(
                f"{alike.folder} and {folder} are both {curve.activation} and differ in more than their seed: "
                f"{'; '.join(different)}"
            )
        twice = [other.run for other in curves if (other.activation, other.seed) == (curve.activation, curve.seed)]
        if twice:
            raise ConfigurationError(f"{twice[0]} and {folder} are both {curve.activation}, seed {curve.seed}")
        curves.append(curve)
    by_seed = {name: {c.seed: c for c in curves if c.activation == name} for name in _NAMES.values()}
    relu, tanh = by_seed["ReLU"], by_seed["tanh"]
    ratios = []
    for seed in sorted(relu.keys() & tanh.keys()):
        ours, theirs = relu[seed].epochs_to_line, tanh[seed].epochs_to_line
        ratio = theirs / ours if ours and theirs is not None else None
        ratios.append(Ratio(seed, ratio, tanh[seed].epochs / ours if ours and theirs is None else None))
    return Comparison(line, tuple(curves), tuple(ratios))


def comparison_values(found: Comparison) -> dict[str, Any]:
    """Everything, as plain values."""
    return {
        "line": found.line,
        "paper_ratio": PAPER_RATIO,
        "ratio_median": statistics.median(found.found) if found.found else None,
        "ratio_low": min(found.found, default=None),
        "ratio_high": max(found.found, default=None),
        "ratios": [asdict(ratio) for ratio in found.ratios],
        "runs": [asdict(curve) for curve in found.curves],
    }


def comparison_in_words(found: Comparison) -> str:
    """How many times as many epochs tanh takes, beside the paper's number."""
    if not found.ratios:
        return "no seed with both ReLU and tanh, so no ratio"
    unknown = len(found.ratios) - len(found.found)
    if not found.found:
        least = [ratio.at_least for ratio in found.ratios if ratio.at_least is not None]
        if len(least) == unknown:
            words = f"tanh / ReLU: more than {min(least):.2f} times the epochs to {100 * found.line:g} %"
            return f"{words} ({count(unknown, 'seed')}); the paper: {PAPER_RATIO:g}"
        return f"tanh / ReLU: not both at {100 * found.line:g} % at any of {unknown} seeds"
    low, high = min(found.found), max(found.found)
    words = f"tanh / ReLU: {statistics.median(found.found):.2f} times the epochs to {100 * found.line:g} %"
    words += f" (median of {len(found.found)} seeds, {low:.2f} to {high:.2f}); the paper: {PAPER_RATIO:g}"
    return words + (f"; not both there at {unknown} more seeds" if unknown else "")


def comparison_page(found: Comparison, command: str) -> str:
    """Tables of the runs and of the ratios; `command` makes the page again."""
    runs = [
        [
            curve.activation,
            text(curve.network),
            str(curve.seed),
            f"{curve.learning_rate:g}",
            str(curve.epochs),
            f"{100 * curve.errors[-1]:.2f}",
            "-" if curve.epochs_to_line is None else f"{curve.epochs_to_line:.2f}",
        ]
        for curve in found.curves
    ]
    line = f"{100 * found.line:g} %"
    header = ["activation", "network", "seed", "learning rate", "epochs", "last training error, %", f"epochs to {line}"]
    ratios = []
    for ratio in found.ratios:
        least = "-" if ratio.at_least is None else f"more than {ratio.at_least:.2f}"
        ratios.append([str(ratio.seed), least if ratio.ratio is None else f"{ratio.ratio:.2f}"])
    parts = [
        f"# Epochs to a training error of {line}",
        f"Made from the folders of runs by {code(command)}; not written by hand.",
        "The training error is that of the whole training split, in evaluation mode, after each epoch. Between two "
        "epochs it is taken to be linear, and before the first one to be that of guessing.",
        f"{comparison_in_words(found)}.",
        markdown_table([header, *runs]),
        *([markdown_table([["seed", "tanh / ReLU"], *ratios])] if ratios else []),
    ]
    return "\n\n".join(parts) + "\n"


def _what_trains(run: RunRecord) -> dict[str, Any]:
    """What runs of one activation must share; how long they train is not part of it."""
    shared = what_trains(run.configuration)
    recipe = shared.get("recipe")
    if isinstance(recipe, Mapping):
        shared["recipe"] = {key: value for key, value in recipe.items() if key != "epochs"}
    return {**shared, "data": run.data}


def _curve(run: RunRecord, folder: str, line: float) -> TrainingCurve:
    network = parse_network(run.configuration.get("network"))
    kinds = {type(row) for row in network.rows.values()}
    found = {evaluation.epoch: evaluation.top1_error for evaluation in run.metrics.training}
    if not found or sorted(found) != list(range(1, len(found) + 1)):
        raise ConfigurationError(
            f"{run.folder} has the errors on the training split after {len(found)} epochs, not after every one; train "
            "with training_error=true"
        )
    errors = (1 - 1 / network.classes, *(found[epoch] for epoch in sorted(found)))
    with explained(f"{run.folder}: config.yaml, recipe.weights.learning_rate", KeyError, TypeError, ValueError):
        learning_rate = float(run.configuration["recipe"]["weights"]["learning_rate"])
    return TrainingCurve(
        run=folder,
        activation=" and ".join(name for kind, name in _NAMES.items() if kind in kinds) or "none",
        network=network.name,
        seed=run.summary.seed,
        learning_rate=learning_rate,
        errors=errors,
        line=line,
        epochs_to_line=epochs_to(line, errors),
    )


def draw_training_errors(found: Comparison, picture: Path) -> None:
    """Draw the curves of every run as a PNG, those of one activation alike, and mark where each comes to the line."""
    with drawing(picture, 7, 4.2) as figure:
        axes = figure.subplots()
        for activation in dict.fromkeys(curve.activation for curve in found.curves):
            style, color = _STYLES.get(activation, (":", GREEN))
            curves = [curve for curve in found.curves if curve.activation == activation]
            label = f"{activation}, learning rate {curves[0].learning_rate:g}, {count(len(curves), 'seed')}"
            for curve in curves:
                axes.plot(range(curve.epochs + 1), curve.errors, style, color=color, lw=1.4, label=label)
                label = "_nolegend_"
                if curve.epochs_to_line is not None:
                    axes.plot(curve.epochs_to_line, found.line, "o", color=color, ms=5)
        axes.axhline(found.line, color=INK, lw=0.9, dashes=(4, 4))
        axes.text(1.01, found.line, f"{100 * found.line:g} %", transform=axes.get_yaxis_transform(), va="center")
        axes.set(xlabel="epochs", ylabel="training error rate", xlim=(0, max(curve.epochs for curve in found.curves)))
        axes.set_ylim(0, 1.02 * max(max(curve.errors) for curve in found.curves))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid()
        axes.legend(loc="upper right")
        axes.set_title(comparison_in_words(found))
