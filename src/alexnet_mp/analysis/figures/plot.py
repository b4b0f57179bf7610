"""Draws the figures that the settings ask for, and writes each with its numbers and its page."""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alexnet_mp.analysis.evaluate.ensemble import open_member
from alexnet_mp.analysis.evaluate.settings import InputChanges
from alexnet_mp.analysis.figures import kernel_color, learning_curves, nearest_neighbors, training_error
from alexnet_mp.analysis.figures.kernel_pictures import draw_kernel_study, draw_kernels
from alexnet_mp.analysis.figures.settings import PlotSettings
from alexnet_mp.checkpoint.retention import newest_checkpoint
from alexnet_mp.common.device import use_threads
from alexnet_mp.common.disk import write_files
from alexnet_mp.common.text import printable
from alexnet_mp.errors import ConfigurationError, explained
from alexnet_mp.training.curves import draw_learning_curves
from alexnet_mp.training.metrics import read_metrics


@dataclass(frozen=True)
class _Figure:
    """A figure to write as `name`.png: what draws it, what it found in lines, and its numbers and its page if any."""

    name: str
    draw: Callable[[Path], None]
    found: Sequence[str] = ()
    numbers: Mapping[str, Any] | None = None
    page: str | None = None

    def write(self, folder: Path) -> list[str]:
        """Write the picture, the numbers as JSON and the page as Markdown; a line for each file, then what was found.

        Each file is there whole or not at all. Raises ConfigurationError if one cannot be written.
        """
        numbers = None if self.numbers is None else json.dumps(self.numbers, indent=1, allow_nan=False) + "\n"
        writers: dict[str, Callable[[Path], object]] = {f"{self.name}.png": self.draw}
        for name, text in ((f"{self.name}.json", numbers), (f"{self.name}.md", self.page)):
            if text is not None:
                writers[name] = partial(Path.write_text, data=text, encoding="utf-8")
        with explained(f"cannot write {self.name} into {folder}; out=FOLDER names another place"):
            written = write_files(folder, writers)
        return [*(f"wrote {path}" for path in written), *self.found]


def plot(settings: PlotSettings) -> Iterator[str]:
    """Draw what the settings say; a line for every figure, when it is there, with its file or why there is none.

    Raises ConfigurationError if the one figure that was asked for cannot be drawn, or nothing can.
    """
    use_threads(settings.threads)
    if settings.runs:
        of_several = {"curves": _curves_of_runs, "kernels": _kernel_study, "relu": _training_errors}
        yield from of_several[str(settings.figure)](settings).write(settings.folder)
        return
    if not settings.run.is_dir():
        raise ConfigurationError(f"run_dir={settings.run} is no folder")
    of_one_run = {"curves": _curves, "kernels": _kernels, "nearest_neighbors": _nearest_neighbors}
    drawn = 0
    for name in of_one_run if settings.figure is None else [settings.figure]:
        try:
            yield from of_one_run[name](settings).write(settings.folder)
            drawn += 1
        except ConfigurationError as error:
            if settings.figure is not None:
                raise
            yield f"{name}: not drawn: {error}"
    if not drawn:
        raise ConfigurationError(f"there is nothing to draw in run_dir={settings.run}")


def _curves(settings: PlotSettings) -> _Figure:
    path = settings.run / "metrics.jsonl"
    metrics = read_metrics(path)
    if metrics.steps_per_epoch is None:
        raise ConfigurationError(f"{path} has no validation yet")
    unread = [f"curves: left out of {path}, as no run writes it: {'; '.join(metrics.unread)}"] if metrics.unread else []
    title = printable(settings.run.resolve().name)
    return _Figure("learning_curve", lambda picture: draw_learning_curves(metrics, picture, title), unread)


def _kernels(settings: PlotSettings) -> _Figure:
    run = kernel_color.read_kernels(str(settings.run_dir), settings.checkpoint_folder, settings.since_start)
    words = kernel_color.separation_in_words(run)
    began = ", less the initial weights" if settings.since_start else ""
    title = f"{printable(run.group)}, seed {run.seed}, after epoch {run.epochs}{began}\n{words}"
    return _Figure(
        "kernels",
        lambda picture: draw_kernels(run, picture, title),
        [words],
        kernel_color.kernel_values(run),
    )


def _nearest_neighbors(settings: PlotSettings) -> _Figure:
    folder = settings.checkpoint_folder or newest_checkpoint(settings.run / "checkpoints").folder
    if folder is None:
        raise ConfigurationError(f"{settings.run} has no whole checkpoint, so no model to ask")
    member = open_member(folder.absolute(), settings.data, InputChanges())
    neighbors = nearest_neighbors.find_nearest_neighbors(member, settings)
    title = f"{printable(member.network.name)}, {folder.name}"
    same, count = neighbors.with_the_same_label
    return _Figure(
        "nearest_neighbors",
        lambda picture: nearest_neighbors.draw_nearest_neighbors(neighbors, picture, title),
        [f"of the nearest training images {same} of {count} have the label of the image they are near to"],
        nearest_neighbors.neighbor_values(neighbors),
    )


def _curves_of_runs(settings: PlotSettings) -> _Figure:
    runs = learning_curves.read_curves(settings.runs)
    return _Figure("learning_curves", lambda picture: learning_curves.draw_curves_of_runs(runs, picture))


def _kernel_study(settings: PlotSettings) -> _Figure:
    groups = kernel_color.group_runs(settings.runs, settings.since_start)
    return _Figure(
        "kernels",
        lambda picture: draw_kernel_study(groups, picture),
        [kernel_color.group_in_words(group) for group in groups],
        kernel_color.kernel_study_values(groups),
        kernel_color.kernel_study_page(groups, _command(settings)),
    )


def _training_errors(settings: PlotSettings) -> _Figure:
    curves = training_error.compare_activations(settings.runs, settings.line)
    return _Figure(
        "relu",
        lambda picture: training_error.draw_training_errors(curves, picture),
        [training_error.comparison_in_words(curves)],
        training_error.comparison_values(curves),
        training_error.comparison_page(curves, _command(settings)),
    )


def _command(settings: PlotSettings) -> str:
    """The command that makes a figure of several runs again."""
    asked = [f"figure={settings.figure}", f"runs=[{','.join(settings.runs)}]", f"out={settings.out}"]
    if settings.figure == "relu" and settings.line != training_error.LINE:
        asked.append(f"line={settings.line:g}")
    if settings.figure == "kernels" and settings.since_start:
        asked.append("since_start=true")
    return shlex.join(["python", "launch/plot.py", *asked])
