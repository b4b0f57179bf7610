"""Writes the page of results in Markdown: tables of runs, their commands and curves, beside published numbers."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from itertools import count as counting
from pathlib import Path

from alexnet_mp.analysis.results.groups import (
    IMAGES_PER_SECOND,
    MINUTES,
    TOP1_ERROR,
    TOP5_ERROR,
    Measure,
    PublishedResult,
    Reference,
    RunGroup,
    Spread,
    compare_with_reference,
    published_of,
    read_groups,
)
from alexnet_mp.analysis.results.markdown import block, code, text
from alexnet_mp.analysis.results.record import Evaluated, RunRecord
from alexnet_mp.analysis.results.studies import Study, draw_study_chart, read_study, study_section
from alexnet_mp.common.text import count, markdown_table, printable
from alexnet_mp.errors import ConfigurationError, explained

PAGE, CURVES = "results.md", "curves"
_SHORT = re.compile(r"^([^-]{,10})[^-]*")  # a commit's first digits; `-dirty` stays behind them

_HOW_TO_READ = """\
Errors are shares of the images that the data set holds out for validation or testing, one center view of each. A run's
result is that after its last epoch. The best epoch is picked on the very images that it is measured on, so it flatters.
Minutes and images/s are of the training steps alone, without validation and checkpoints."""

REBUILT = "This command was not recorded but rebuilt from summary.json; other keys that were changed may be missing."


def write_results_page(
    folders: Sequence[str], out: Path, published: Mapping[str, PublishedResult], sweeps: Sequence[str] = ()
) -> list[Path]:
    """Write `results.md` and the curves of the runs in `folders` into the folder `out`; return the files written.

    `sweeps` are folders of sweeps, each a study at the end of the page. Raises ConfigurationError if there is neither,
    if a run cannot be read, before anything is written, and if `out` cannot be.
    """
    from alexnet_mp.training.curves import draw_learning_curves  # matplotlib: not before there is something to draw

    if not folders and not sweeps:
        raise ConfigurationError("give the folders of finished runs, runs=[runs/a,runs/b], or sweeps=[sweeps/a]")
    groups, studies = read_groups(folders), [read_study(Path(sweep)) for sweep in sweeps]
    names = _picture_names(groups, studies)
    pictured, charted = dict(zip(names, groups, strict=False)), dict(zip(names[len(groups) :], studies, strict=True))
    page = out / PAGE
    with explained(f"cannot write out={out}"):
        (out / CURVES).mkdir(parents=True, exist_ok=True)
        for picture, group in pictured.items():
            run = group.median_run
            title = f"{run.summary.network}, experiment {run.summary.experiment}, seed {run.summary.seed}"
            draw_learning_curves(run.metrics, out / CURVES / picture, printable(title))
        for chart, study in charted.items():
            draw_study_chart(study, out / CURVES / chart)
        given = [f"{key}=[{','.join(paths)}]" for key, paths in (("runs", folders), ("sweeps", sweeps)) if paths]
        command = shlex.join(["python", "launch/results.py", *given, f"out={out}"])
        page.write_text(results_page(pictured, charted, published, command), encoding="utf-8")
    return [page, *(out / CURVES / name for name in names)]


def results_page(
    groups: Mapping[str, RunGroup], studies: Mapping[str, Study], published: Mapping[str, PublishedResult], command: str
) -> str:
    """The page, with groups and studies by the name of their picture; `command` is what makes it again."""
    parts = ["# Results", f"Made from the folders of runs by {code(command)}; not written by hand.", _HOW_TO_READ]
    if any((run.summary.commit or "").endswith("-dirty") for group in groups.values() for run in group.runs):
        parts.append("A commit ends in `-dirty` if the run's checkout had changes that were not committed.")
    if len(groups) > 1:
        parts.append(_overview(groups.values()))
    experiment = None
    for picture, group in groups.items():
        known = published_of(group.first.summary.experiment, published, group.first.summary.command)
        if group.first.summary.experiment != experiment:
            experiment = group.first.summary.experiment
            parts += [f"## {text(experiment)}", *([known.note.strip()] if known.note else [])]
        parts += _section(group, known, picture)
    for chart, study in studies.items():
        parts += study_section(study, published_of(study.name, published).note, f"{CURVES}/{chart}")
    return "\n\n".join(parts) + "\n"


def _overview(groups: Iterable[RunGroup]) -> str:
    shown = (TOP1_ERROR, TOP5_ERROR, MINUTES)
    rows = []
    for group in groups:
        ran = group.first.summary
        cells = [measure.median_and_range(group.runs)[0] for measure in shown]
        rows.append([text(ran.experiment), code(_name(group)), str(ran.epochs), str(len(group.runs)), *cells])
    medians = markdown_table([["experiment", "network", "epochs", "runs", *(each.shown for each in shown)], *rows])
    return f"{medians}\n\nOf several runs, which differ in their seed alone, these are medians."


def _section(group: RunGroup, known: PublishedResult, picture: str) -> Iterator[str]:
    ran = group.first.summary
    yield f"### {code(_name(group))}"
    yield _setup(group)
    yield _commands([run.command for run in group.runs], [run.summary.command for run in group.runs])
    epochs = {reference.at_epoch for reference in known.references if reference.at_epoch is not None}
    yield _runs(group, sorted(epochs))
    evaluations = [(run, found) for run in group.runs for found in run.evaluations]
    if evaluations:
        yield "Evaluated afterwards, from checkpoints:"
        commands = [run.command_of(found) for run, found in evaluations]
        yield _commands(commands, [found.command for _, found in evaluations])
        yield _evaluations(evaluations)
    if known.references:
        yield "To compare with:"
        yield _references(group, known.references)
    elif not known.note:
        yield "No published number is known for this experiment."
    which = f", seed {group.median_run.summary.seed}" + (", the median run" if len(group.runs) > 1 else "")
    curves = f"Loss and error over epochs: {ran.network}, experiment {ran.experiment}{which}"
    yield f"![{text(curves)}]({CURVES}/{picture})"


def _name(group: RunGroup) -> str:
    """The network, and what the command line changed of the experiment."""
    command = shlex.split(group.first.summary.command or "")
    overrides = [word for word in command if "=" in word and not word.startswith("-")]
    changes = [override for override in overrides if not override.startswith(("experiment=", "seed="))]
    return " ".join([group.first.summary.network, *changes])


def _setup(group: RunGroup) -> str:
    run, ran = group.first, group.first.summary
    towers = len(ran.parameters_per_tower)
    lines = {
        "network": f"{code(ran.network)}: {count(towers, 'tower')}, {ran.parameters:,} parameters",
        "recipe": f"{code(run.recipe)}: {count(ran.epochs, 'epoch')}, batch {ran.batch_size}, {text(ran.precision)}",
        "data": text(run.data),
        "machine": f"{text(ran.device)}; placement {code(ran.placement)}, {ran.processes_in_words}",
        "versions": text(ran.versions_in_words),
    }
    return "\n".join(f"- {name}: {text}" for name, text in lines.items())


def _runs(group: RunGroup, epochs: Sequence[int]) -> str:
    """One row a run; of several, their median and range below."""

    def error_at(run: RunRecord, epoch: int) -> float | None:
        found = run.at_epoch(epoch)
        return None if found is None else found.top1_error

    measures = [
        TOP1_ERROR,
        TOP5_ERROR,
        *(Measure(f"top-1 error at epoch {n}, %", partial(error_at, epoch=n), factor=100) for n in epochs),
        Measure("best top-1 error, %", lambda run: run.best.top1_error, factor=100),
        Measure("best epoch", lambda run: run.best.epoch, ".0f"),
        MINUTES,
        IMAGES_PER_SECOND,
    ]
    rows = []
    for run in group.runs:
        commit = text(_SHORT.sub(r"\1", run.summary.commit or "unknown"))
        rows.append([str(run.summary.seed), *(measure.text(measure.value(run)) for measure in measures), commit])
    if len(group.runs) > 1:
        spreads = [measure.median_and_range(group.runs) for measure in measures]
        rows.append(["**median**", *(f"**{median}**" for median, _ in spreads), ""])
        rows.append(["range", *(low_to_high for _, low_to_high in spreads), ""])
    return markdown_table([["seed", *(measure.shown for measure in measures), "commit"], *rows])


def _evaluations(evaluations: Sequence[tuple[RunRecord, Evaluated]]) -> str:
    header = ["seed", "checkpoint", "images of", "views", "images", "top-1 error, %", "top-5 error, %"]
    rows = []
    for run, found in evaluations:
        errors = [f"{100 * found.top1_error:.2f}", f"{100 * found.top5_error:.2f}"]
        numbers = [str(found.views), f"{found.images:,}", *errors]
        rows.append([str(run.summary.seed), text(_checkpoint(run, found)), text(found.images_of), *numbers])
    remark = "\n\nOf these, some scaled the pixels in another way than the run was trained with: see the commands."
    return markdown_table([header, *rows]) + remark * (not all(run.is_own_input(found) for run, found in evaluations))


def _checkpoint(run: RunRecord, found: Evaluated) -> str:
    names = found.checkpoint_names
    if len(names) != 1:
        return f"{len(names)} checkpoints, averaged" if names else "not recorded"
    which = {run.summary.best_checkpoint: " (the best)", run.summary.checkpoint: " (the last)"}
    return f"{names[0]}{which.get(names[0], '')}"


def _commands(commands: Sequence[str], recorded: Sequence[str | None]) -> str:
    shown = block(commands)
    return f"{shown}\n\n{REBUILT}" if None in recorded else shown


def _references(group: RunGroup, references: Sequence[Reference]) -> str:
    rows = []
    for reference in references:
        found = compare_with_reference(group, reference)
        here = found if isinstance(found, str) else _spread(found, len(group.runs))
        rows.append([reference.what, reference.unit, f"{reference.value:g}", here, reference.after, reference.source])
    return markdown_table([["reference", "measure", "its value", "here", "here after", "source"], *rows])


def _spread(found: Spread, runs: int) -> str:
    if runs == 1:
        return f"{found.median:.2f}"
    of = f"{found.count} runs" if found.count == runs else f"{found.count} of {runs} runs"
    return f"{found.median:.2f} (median of {of}; {found.lowest:.2f} to {found.highest:.2f})"


def _picture_names(groups: Sequence[RunGroup], studies: Sequence[Study]) -> list[str]:
    """`<experiment>-<network>.png` and `study-<name>.png`, with a number for the second one of a name."""
    names: list[str] = []
    pictured = [f"{group.first.summary.experiment}-{group.first.summary.network}" for group in groups]
    for said in (*pictured, *(f"study-{study.name}" for study in studies)):
        stem = re.sub(r"[^\w.-]", "_", said)
        numbered = chain([f"{stem}.png"], (f"{stem}-{number}.png" for number in counting(2)))
        names.append(next(name for name in numbered if name not in names))
    return names
