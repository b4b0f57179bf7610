"""Writes the results of an evaluation: its summary, tables of classes and confusions, and pictures of both."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_mp.common.disk import regular, write_files
from alexnet_mp.common.letters import drawable_names
from alexnet_mp.common.text import csv_table, printable
from alexnet_mp.errors import ConfigurationError, explained
from alexnet_mp.training.validation import Evaluation

SUMMARY = "summary.json"
FILES = ("classes.csv", "confusions.csv", "classes.png", "confusions.png", SUMMARY)
LARGEST_MATRIX = 20  # classes whose confusions can be read as a matrix


@dataclass(frozen=True)
class ClassErrors:
    """One class: how many images carry its label, and the fractions of them that went wrong; None without images."""

    name: str
    images: int
    top1_error: float | None
    top5_error: float | None


@dataclass(frozen=True)
class Confusion:
    """`count` images of class `label` were taken for `predicted`: `fraction` of the label's images."""

    label: str
    predicted: str
    count: int
    fraction: float


def class_errors(evaluation: Evaluation, names: Sequence[str]) -> list[ClassErrors]:
    """The errors of every class, in the order of the classes."""
    images = evaluation.confusions.sum(dim=1).tolist()
    right = evaluation.confusions.diagonal().tolist()
    top5_wrong = evaluation.top5_wrong.tolist()
    return [
        ClassErrors(name, n, (n - right[label]) / n if n else None, top5_wrong[label] / n if n else None)
        for label, (name, n) in enumerate(zip(names, images, strict=True))
    ]


def most_confused(evaluation: Evaluation, names: Sequence[str]) -> list[Confusion]:
    """Every pair of classes that was confused, the most images first; of equal ones in the order of the classes."""
    wrong = evaluation.confusions.clone().fill_diagonal_(0)
    images = evaluation.confusions.sum(dim=1).tolist()
    pairs = [(int(wrong[label, predicted]), label, predicted) for label, predicted in wrong.nonzero().tolist()]
    return [
        Confusion(names[label], names[predicted], count, count / images[label])
        for count, label, predicted in sorted(pairs, key=lambda pair: -pair[0])
    ]


def write_results(
    folder: Path, summary: dict[str, Any], evaluation: Evaluation, class_names: Sequence[str], most: int
) -> None:
    """Write every file, each whole or not at all; `most` limits `confusions.csv`."""
    from alexnet_mp.analysis.evaluate.pictures import draw_classes, draw_confusions  # matplotlib: slow to import

    names = [printable(name) for name in class_names]
    classes, confusions = class_errors(evaluation, names), most_confused(evaluation, names)
    drawn = drawable_names(names)
    pairs = most_confused(evaluation, drawn)
    split = f"{printable(summary['data']['name'])} {summary['split']}"
    title = f"{split}, views {summary['views']}: top-1 error {100 * summary['top1_error']:.2f} %"
    text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    writers = {
        "classes.csv": lambda path: path.write_text(_csv(ClassErrors, classes), "utf-8"),
        "confusions.csv": lambda path: path.write_text(_csv(Confusion, confusions[:most]), "utf-8"),
        "classes.png": lambda path: draw_classes(class_errors(evaluation, drawn), path, title),
        "confusions.png": lambda path: draw_confusions(evaluation.confusions, drawn, pairs, path, title),
        SUMMARY: lambda path: path.write_text(text, "utf-8"),  # the last: with it the results are complete
    }
    with explained(f"cannot write the results into {folder}"):
        write_files(folder, writers)


def _csv(kind: type[object], rows: Sequence[object]) -> str:
    return csv_table(list(kind.__annotations__), map(vars, rows))


def make_results_folder(out: str | None, checkpoint: Path, question: dict[str, Any], is_main: bool) -> Path:
    """The folder `out`, or one of this checkpoint's own; the main process makes it.

    Raises ConfigurationError if it cannot be made, if `out` holds results already, or if the checkpoint's own
    folder holds the answer to another `question` than this, for example about another checkpoint of the same run.
    """
    path = _own_folder(checkpoint, question) if out is None else Path(out).absolute()
    held = [name for name in FILES if (path / name).exists()]
    if held and out is not None:
        raise ConfigurationError(f"out={path} holds {held[0]} already; choose another folder")
    differs = _differs(path / SUMMARY, question) if SUMMARY in held else ""
    if differs:
        raise ConfigurationError(f"{path} holds results for {differs}; choose another folder with out=FOLDER")
    if is_main:
        with explained(f"cannot make the folder {path}; choose another with out=FOLDER"):
            path.mkdir(parents=True, exist_ok=True)
    return path


def _own_folder(checkpoint: Path, question: dict[str, Any]) -> Path:
    members = len(question["checkpoints"])
    name = f"{question['split']}-{question['views']}views" + (f"-ensemble-of-{members}" if members > 1 else "")
    if checkpoint.parent.name == "checkpoints":
        return checkpoint.parent.parent / "evaluation" / name
    return checkpoint.with_name(f"{checkpoint.name}-evaluation") / name


def _differs(summary: Path, question: dict[str, Any]) -> str:
    """What an earlier summary was about, if that was another question; empty if it was this one."""
    try:
        earlier = json.loads(regular(summary).read_text("utf-8"))
        # A run and a pack that have moved since are the same, if their content is.
        same = {"identity", *dict(earlier.get("identity", {}).items() & question["identity"].items())}
        asked = [key for key in question if key not in same]
        differing = [f"{key} {json.dumps(earlier[key])}" for key in asked if earlier[key] != question[key]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"nobody knows what ({summary.name} cannot be read)"
    return next(iter(differing), "")
