"""Writes the report: one HTML page, with its style in it, that needs no network and no script."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from alexnet_mp.analysis.evaluate.folder import LARGEST_MATRIX, class_errors, most_confused
from alexnet_mp.analysis.figures.kernels import colorfulness, separation
from alexnet_mp.analysis.report.checkpoint_analysis import (
    CheckpointAnalysis,
    Predictions,
    ReportOptions,
    analyze_checkpoint,
)
from alexnet_mp.analysis.report.folder import ReportedRun, read_folder
from alexnet_mp.analysis.report.template import embedded_image, render
from alexnet_mp.analysis.report.training_sections import crossing_bytes, learning_charts, speed_chart
from alexnet_mp.analysis.report.words import layers_in_words, network_in_words
from alexnet_mp.analysis.results.groups import (
    PublishedResult,
    Reference,
    RunGroup,
    compare_with_reference,
    published_of,
)
from alexnet_mp.analysis.results.page import REBUILT
from alexnet_mp.analysis.results.record import RunRecord
from alexnet_mp.common.disk import write_whole
from alexnet_mp.errors import ConfigurationError, explained
from alexnet_mp.network.costs import network_cost
from alexnet_mp.training.kernel_sheet import kernel_sheet

_SHEET_WIDTH = 700  # pixels of a picture of kernels, about
_SECTIONS = {  # each is a template of this name, and a place that links lead to
    "configuration": "Configuration",
    "learning": "Learning",
    "kernels": "Kernels of the towers",
    "confusion": "Confusion",
    "examples": "Examples",
    "throughput": "Throughput and the crossing",
    "published": "Beside published numbers",
    "end": "The run's end",
}


def write_report(
    folder: Path, out: Path, options: ReportOptions, published: Mapping[str, PublishedResult], command: str
) -> list[str]:
    """Write the page of the run in `folder` to the file `out`, whole or not at all; return what is missing on it.

    `command` is what makes the page again.

    Raises ConfigurationError for a folder that has nothing of a run, and if `out` cannot be written.
    """
    run = read_folder(folder)
    analysis = analyze_checkpoint(folder, options)
    page = as_html(run, analysis, published, command)
    with explained(f"cannot write out={out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, page.encode())
    return [*run.lacking, *analysis.missing]


def as_html(
    run: ReportedRun, analysis: CheckpointAnalysis, published: Mapping[str, PublishedResult], command: str
) -> str:
    """The page; `command` is what makes it again. Each value is named as the templates in `templates` call it."""
    network = run.network or analysis.network
    numbers = published_of(run.experiment, published, run.record.summary.command if run.record else None)
    return render(
        "page.html.j2",
        sections=_SECTIONS,
        run=run,
        summary=run.summary,
        metrics=run.metrics,
        analysis=analysis,
        network=network,
        recipe=run.recipe,
        name=run.summary.network if run.summary else network.name if network else None,
        parameters=network_cost(network.without_auxiliaries()).parameters if network else None,
        network_words=network_in_words(network) if network else None,
        layers=layers_in_words(network) if network else [],
        charts=learning_charts(run.metrics),
        kernels=_kernels(analysis.kernels, analysis.predictions),
        predictions=analysis.predictions,
        confusion=_confusion(analysis.predictions) if analysis.predictions else None,
        speed=speed_chart(run.metrics),
        crossing=crossing_bytes(run, network, run.batch_size) if network and run.batch_size else None,
        published=numbers,
        published_numbers=_published_numbers(run.record, numbers.references),
        evaluations=run.record.evaluations if run.record else (),
        rebuilt=REBUILT,
        whole_configuration=yaml.safe_dump(dict(run.configuration), sort_keys=False, allow_unicode=True),
        command=command,
    )


def _kernels(towers: Sequence[Tensor], predictions: Predictions | None) -> dict[str, Any]:
    """A sheet for each tower's kernels [kernels, channels, height, width], and the separation of the towers, if any.

    There is none if the images are `gray`: their kernels' colors are those of the initial weights. There is a `problem`
    instead for no kernels, and for kernels whose channels cannot be shown as colors.
    """
    shown = [each.pixels for each in (*predictions.wrong, *predictions.right)] if predictions else []
    gray = bool(shown) and all((pixels == pixels[:, :, :1]).all() for pixels in shown)
    colors = colorfulness(towers) if towers else []
    sheets = []
    try:
        for tower, (kernels, color) in enumerate(zip(towers, colors, strict=True)):
            living = color[~color.isnan()]
            side, dead = kernels.shape[-1], len(color) - len(living)
            pixels = kernel_sheet([kernels], scale=max(1, _SHEET_WIDTH // (16 * (side + 1))))
            median = f", median colorfulness {living.quantile(0.5):.2f}" * (not gray) if len(living) else ", all dead"
            ended = f", {dead} of them dead" if dead and len(living) else ""
            words = f"Tower {tower}: {len(kernels)} kernels of {side}×{side}{ended}{median}."
            sheets.append({"image": embedded_image(pixels, is_drawing=True), "words": words})
    except ConfigurationError as error:
        return {"problem": f"{error}."}
    apart = None
    with suppress(ConfigurationError):  # one tower, or one whose kernels are all dead
        apart = None if gray else separation(colors)
    problem = None if towers else "There are no kernels to show."
    return {"problem": problem, "gray": gray, "sheets": sheets, "separation": apart}


def _confusion(predictions: Predictions) -> dict[str, Any]:
    """What was taken for what: all of it for few classes, the pairs and the classes with the most errors for many."""
    evaluation, names = predictions.evaluation, predictions.class_names
    known = [each for each in class_errors(evaluation, names) if each.images]
    known.sort(key=lambda each: -(each.top1_error or 0))
    return {
        "pairs": most_confused(evaluation, names),
        "matrix": evaluation.confusions.tolist() if len(names) <= LARGEST_MATRIX else None,
        "worst_first": known,
    }


def _published_numbers(record: RunRecord | None, references: Sequence[Reference]) -> list[dict[str, Any]]:
    """Each `reference`, what it is compared `after`, what was `found`, or why there is nothing, and the `difference`.

    Without a record, the run has not finished.
    """
    rows = []
    for reference in references:
        found, difference = compare_with_reference(RunGroup((record,)), reference) if record else "not finished", ""
        if not isinstance(found, str):
            difference = f"{found.median - reference.value:+.2f}".replace("-", "−")
            found = f"{found.median:.2f}"
        rows.append({**vars(reference), "after": reference.after, "found": found, "difference": difference})
    return rows
