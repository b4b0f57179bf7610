"""Epochs until a training error is reached, ReLU beside tanh (the paper's Figure 1): from the folders of runs."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from alexnet_mp.analysis.results.groups import what_trains
from alexnet_mp.analysis.results.markdown import code, text
from alexnet_mp.analysis.results.record import RunRecord, read_run
from alexnet_mp.common.schema import differences
from alexnet_mp.common.text import count, markdown_table
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.rows import Relu, Tanh
from alexnet_mp.network.table import Network, parse_network

LINE = 0.25  # paper §3.1, Figure 1
PAPER_RATIO = 6.0  # "six times faster", there
_NAMES = {Relu: "ReLU", Tanh: "tanh"}


@dataclass(frozen=True)
class TrainingCurve:
    """A run's error on the training split, a fraction, after epoch 0, 1, 2 ...; after 0 that of guessing.

    `epochs_to_line` is where the curve first is at `line` or below, linear between two epochs; None where it is not.
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
    """tanh's epochs to the line by ReLU's, at one seed.

    Where tanh does not come to the line, `ratio` is None and `at_least` is what its epochs by ReLU's would be if it
    came to the line right after its last one. Both are None where ReLU does not come to it.
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

    def of(self, activation: str) -> list[TrainingCurve]:
        return [curve for curve in self.curves if curve.activation == activation]

    @property
    def activations(self) -> list[str]:
        """In the order of the runs."""
        return list(dict.fromkeys(curve.activation for curve in self.curves))


def epochs_to(line: float, errors: Sequence[float]) -> float | None:
    """Where `errors`, after epoch 0, 1, 2 ..., first are at `line` or below; linear between two epochs."""
    if errors[0] <= line:
        return 0.0
    for epoch, (before, after) in enumerate(pairwise(errors)):
        if after <= line:
            return epoch + (before - line) / (before - after)
    return None


def compare_activations(folders: Sequence[str], line: float) -> Comparison:
    """Read finished runs that were trained with `training_error=true`.

    Raises ConfigurationError for a run that cannot be read or has no training errors, and where two of one activation
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
    ratios = tuple(_ratio(relu[seed], tanh[seed]) for seed in sorted(relu.keys() & tanh.keys()))
    return Comparison(line, tuple(curves), ratios)


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
    ratios = [[str(ratio.seed), _ratio_in_words(ratio)] for ratio in found.ratios]
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


def _ratio_in_words(ratio: Ratio) -> str:
    if ratio.ratio is not None:
        return f"{ratio.ratio:.2f}"
    return "-" if ratio.at_least is None else f"more than {ratio.at_least:.2f}"


def _ratio(relu: TrainingCurve, tanh: TrainingCurve) -> Ratio:
    if not relu.epochs_to_line:
        return Ratio(relu.seed, None, None)
    if tanh.epochs_to_line is None:
        return Ratio(relu.seed, None, tanh.epochs / relu.epochs_to_line)
    return Ratio(relu.seed, tanh.epochs_to_line / relu.epochs_to_line, None)


def _curve(run: RunRecord, folder: str, line: float) -> TrainingCurve:
    network = parse_network(run.configuration.get("network"))
    errors = (1 - 1 / network.classes, *_training_errors(run))
    return TrainingCurve(
        run=folder,
        activation=activation_of(network),
        network=network.name,
        seed=run.summary.seed,
        learning_rate=_learning_rate(run),
        errors=errors,
        line=line,
        epochs_to_line=epochs_to(line, errors),
    )


def activation_of(network: Network) -> str:
    """`ReLU`, `tanh`, or both, in words; `none` for a network without."""
    kinds = {type(row) for row in network.rows.values()}
    return " and ".join(name for kind, name in _NAMES.items() if kind in kinds) or "none"


def _learning_rate(run: RunRecord) -> float:
    try:
        return float(run.configuration["recipe"]["weights"]["learning_rate"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{run.folder}: its config.yaml has no recipe.weights.learning_rate") from error


def _training_errors(run: RunRecord) -> list[float]:
    """The error after epoch 1, 2 ..."""
    found = {evaluation.epoch: evaluation.top1_error for evaluation in run.metrics.training}
    if not found or sorted(found) != list(range(1, len(found) + 1)):
        raise ConfigurationError(
            f"{run.folder} has the errors on the training split after {len(found)} epochs, not after every one; train "
            "with training_error=true"
        )
    return [found[epoch] for epoch in sorted(found)]
