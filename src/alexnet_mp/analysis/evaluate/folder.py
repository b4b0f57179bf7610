"""The folder of an evaluation: its summary, a table of the classes, one of the confusions, and pictures of both."""

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_mp.analysis.evaluate.tables import ClassErrors, Confusion, class_errors, most_confused
from alexnet_mp.common.text import csv_cell, printable
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.training.validation import Evaluation

SUMMARY = "summary.json"
FILES = ("classes.csv", "confusions.csv", "classes.png", "confusions.png", SUMMARY)
_QUESTION = ("network", "checkpoints", "data", "input", "split", "views")


@dataclass(frozen=True)
class ResultsFolder:
    """A folder that is this evaluation's to write into."""

    path: Path

    def write(self, summary: dict[str, Any], evaluation: Evaluation, class_names: Sequence[str], most: int) -> None:
        """Write every file, each whole or not at all; `most` limits `confusions.csv`."""
        from alexnet_mp.analysis.evaluate.pictures import draw_classes, draw_confusions  # matplotlib: slow to import

        names = [printable(name) for name in class_names]
        classes, confusions = class_errors(evaluation, names), most_confused(evaluation, names)
        split = f"{printable(summary['data']['name'])} {summary['split']}"
        title = f"{split}, views {summary['views']}: top-1 error {100 * summary['top1_error']:.2f} %"
        text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
        writers: dict[str, Callable[[Path], object]] = {
            "classes.csv": lambda path: _write_csv(path, ClassErrors, classes),
            "confusions.csv": lambda path: _write_csv(path, Confusion, confusions[:most]),
            "classes.png": lambda path: draw_classes(classes, path, title),
            "confusions.png": lambda path: draw_confusions(evaluation.confusions, names, confusions, path, title),
            SUMMARY: lambda path: path.write_text(text),  # the last: with it the results are complete
        }
        try:
            for name in FILES:
                unfinished = self.path / f".{name}.unfinished"
                writers[name](unfinished)
                unfinished.replace(self.path / name)
        except OSError as error:
            raise ConfigurationError(f"cannot write the results into {self.path}: {error}") from error


def claim_results_folder(out: str | None, checkpoint: Path, question: dict[str, Any], is_main: bool) -> ResultsFolder:
    """The folder `out`, or one of this checkpoint's own; the main process makes it.

    Raises ConfigurationError where it cannot be made, where `out` holds results already, or where the checkpoint's own
    folder holds the answer to another `question` than this, for example about another checkpoint of the same run.
    """
    path = _own_folder(checkpoint, question) if out is None else Path(out).absolute()
    held = [name for name in FILES if (path / name).exists()]
    if held and out is not None:
        raise ConfigurationError(f"out={path} holds {held[0]} already; choose another folder")
    if SUMMARY in held:
        differs = _differs(path / SUMMARY, question)
        if differs:
            raise ConfigurationError(f"{path} holds results for {differs}; choose another folder with out=FOLDER")
    if is_main:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"cannot make the folder {path}: {error}; choose another with out=FOLDER"
            ) from error
    return ResultsFolder(path)


def _own_folder(checkpoint: Path, question: dict[str, Any]) -> Path:
    members = len(question["checkpoints"])
    name = f"{question['split']}-{question['views']}views"
    name += f"-ensemble-of-{members}" if members > 1 else ""
    if checkpoint.parent.name == "checkpoints":
        return checkpoint.parent.parent / "evaluation" / name
    return checkpoint.with_name(f"{checkpoint.name}-evaluation") / name


def _differs(summary: Path, question: dict[str, Any]) -> str:
    """What an earlier summary was about, where that was not this question."""
    try:
        earlier = json.loads(summary.read_text())
        answered = {key: earlier[key] for key in _QUESTION}
    except (OSError, ValueError, KeyError, TypeError):
        return f"nobody knows what ({summary.name} cannot be read)"
    for key in _QUESTION:
        if answered[key] != question[key]:
            return f"{key} {json.dumps(answered[key])}"
    return ""


def _write_csv(path: Path, kind: type[ClassErrors] | type[Confusion], rows: Iterable[ClassErrors | Confusion]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(kind.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: csv_cell(v) if isinstance(v, str) else v for k, v in vars(row).items()})
