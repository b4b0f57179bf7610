"""Which figures are drawn, from what, and into which files."""

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from alexnet_mp.analysis.evaluate.ensemble import Member, open_ensemble
from alexnet_mp.analysis.evaluate.settings import EvaluateSettings, InputChanges
from alexnet_mp.analysis.figures import (
    kernel_color as specialization,
)
from alexnet_mp.analysis.figures import (
    nearest_neighbors as examples,
)
from alexnet_mp.analysis.figures import (
    training_error,
)
from alexnet_mp.analysis.figures.example_pictures import draw_examples
from alexnet_mp.analysis.figures.kernel_pictures import draw_kernels, draw_study
from alexnet_mp.analysis.figures.settings import PlotSettings
from alexnet_mp.analysis.figures.training_error_picture import draw_training_errors
from alexnet_mp.checkpoint.retention import newest_checkpoint
from alexnet_mp.common.disk import write_whole
from alexnet_mp.common.text import printable
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.training.curves import draw_learning_curves
from alexnet_mp.training.metrics import read_metrics

Draw = Callable[[Path], object]


def plot(settings: PlotSettings) -> Iterator[str]:
    """Draw what the settings say; a line for every figure, when it is there, with its file or why there is none.

    Raises ConfigurationError where the one figure that was asked for cannot be drawn, or nothing can.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if settings.runs:
        yield from _kernels_of_runs(settings) if settings.figure == "kernels" else _training_errors(settings)
        return
    run = Path(settings.run_dir or "")
    if not run.is_dir():
        raise ConfigurationError(f"run_dir={run} is no folder")
    of_one_run = {"curves": _curves, "kernels": _kernels, "examples": _examples}
    drawn = 0
    for name in of_one_run if settings.figure is None else [settings.figure]:
        try:
            yield from of_one_run[name](settings)
            drawn += 1
        except ConfigurationError as error:
            if settings.figure is not None:
                raise
            yield f"{name}: not drawn: {error}"
    if not drawn:
        raise ConfigurationError(f"there is nothing to draw in run_dir={run}")


def _curves(settings: PlotSettings) -> Iterator[str]:
    path = Path(settings.run_dir or "") / "metrics.jsonl"
    metrics = read_metrics(path)
    if metrics.steps_per_epoch is None:
        raise ConfigurationError(f"{path} has no validation yet")
    if metrics.unread:
        yield f"curves: left out of {path}, as no run writes it: {'; '.join(metrics.unread)}"
    title = printable(Path(settings.run_dir or "").resolve().name)
    yield _picture(settings, "learning_curve.png", lambda path: draw_learning_curves(metrics, path, title))


def _kernels(settings: PlotSettings) -> Iterator[str]:
    run = specialization.read_kernels(settings.run_dir or "", _checkpoint(settings), settings.since_start)
    words = specialization.separation_in_words(run)
    began = ", less the initial weights" if settings.since_start else ""
    title = f"{printable(run.group)}, seed {run.seed}, after epoch {run.epochs}{began}\n{words}"
    yield _picture(settings, "kernels.png", lambda path: draw_kernels(run, path, title))
    yield _json(settings, "kernels.json", specialization.as_values(run))
    yield words


def _examples(settings: PlotSettings) -> Iterator[str]:
    member = _member(settings)
    found = examples.find_examples(member, settings.chosen, settings.device)
    title = f"{printable(member.network.name)}, {member.folder.name}"
    yield _picture(settings, "examples.png", lambda path: draw_examples(found, path, title))
    yield _json(settings, "examples.json", examples.as_values(found))
    same, all_of_them = examples.same_label(found)
    yield f"of the nearest training images {same} of {all_of_them} have the label of the image they are near to"


def _kernels_of_runs(settings: PlotSettings) -> Iterator[str]:
    groups = specialization.group_runs(settings.runs, settings.since_start)
    yield _picture(settings, "kernels.png", lambda path: draw_study(groups, path))
    yield _json(settings, "kernels.json", specialization.study_as_values(groups))
    yield _text(settings, "kernels.md", specialization.study_as_markdown(groups, _command(settings)))
    yield from map(specialization.in_words, groups)


def _training_errors(settings: PlotSettings) -> Iterator[str]:
    found = training_error.compare_activations(settings.runs, settings.line)
    yield _picture(settings, "relu.png", lambda path: draw_training_errors(found, path))
    yield _json(settings, "relu.json", training_error.as_values(found))
    yield _text(settings, "relu.md", training_error.as_markdown(found, _command(settings)))
    yield training_error.in_words(found)


def _checkpoint(settings: PlotSettings) -> Path | None:
    return None if settings.checkpoint is None else Path(settings.checkpoint)


def _member(settings: PlotSettings) -> Member:
    """The checkpoint named, or the run's newest whole one, and what it says of its data."""
    run = Path(settings.run_dir or "")
    folder = _checkpoint(settings) or newest_checkpoint(run / "checkpoints").folder
    if folder is None:
        raise ConfigurationError(f"{run} has no whole checkpoint, so no model to ask")
    asked = EvaluateSettings(
        checkpoint=str(folder),
        views=1,
        split=settings.split,
        data=settings.data,
        input=InputChanges(),
        batch_size=1,
        placement="simulated",
        device=settings.device,
        precision="float32",
        threads=settings.threads,
        timeout_seconds=60,
        most_confused=1,
        out=None,
    )
    return open_ensemble(asked)[0]


def _command(settings: PlotSettings) -> str:
    """What makes a study's figure again."""
    asked = [f"figure={settings.figure}", f"runs=[{','.join(settings.runs)}]", f"out={settings.out}"]
    if settings.figure == "relu" and settings.line != training_error.LINE:
        asked.append(f"line={settings.line:g}")
    if settings.figure == "kernels" and settings.since_start:
        asked.append("since_start=true")
    return shlex.join(["python", "launch/plot.py", *asked])


def _picture(settings: PlotSettings, name: str, draw: Draw) -> str:
    """Have a picture there whole or not at all."""
    path = settings.folder / name
    unfinished = path.with_name(f".unfinished-{name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error}; out=FOLDER names another place") from error
    return f"wrote {path}"


def _json(settings: PlotSettings, name: str, values: dict[str, Any]) -> str:
    return _text(settings, name, json.dumps(values, indent=1, allow_nan=False) + "\n")


def _text(settings: PlotSettings, name: str, text: str) -> str:
    return _picture(settings, name, lambda path: write_whole(path, text.encode()))
