"""The sections on what came of a run: its numbers beside published ones, and how it ended."""

from collections.abc import Mapping, Sequence

import yaml

from alexnet_mp.analysis.report.checkpoint_analysis import Examination
from alexnet_mp.analysis.report.checkpoint_sections import checkpoint_in_words
from alexnet_mp.analysis.report.folder import ReportedRun
from alexnet_mp.analysis.report.html import Content, Html, joined
from alexnet_mp.analysis.report.pieces import (
    Section,
    amount,
    block,
    code,
    duration,
    folded,
    paragraph,
    percent,
    prose,
    section,
    table,
    terms,
)
from alexnet_mp.analysis.results.groups import (
    PublishedResult,
    Reference,
    RunGroup,
    compare_with_reference,
    published_of,
)
from alexnet_mp.analysis.results.page import REBUILT
from alexnet_mp.analysis.results.record import Evaluated
from alexnet_mp.common.text import count


def published_section(run: ReportedRun, published: Mapping[str, PublishedResult]) -> Section:
    """The run's numbers beside those that others published, and its evaluations after the training."""
    known = published_of(run.experiment, published, run.record.summary.command if run.record else None)
    parts: list[Content] = (
        [paragraph("The note to these numbers, as the page of results has it: ", prose(known.note.strip()))]
        if known.note
        else []
    )
    if known.references:
        parts.append(_references(run, known.references))
    elif not known.note:
        parts.append(paragraph("No published number is known for this experiment."))
    if run.record and run.record.evaluations:
        parts.append(_evaluations(run.record.evaluations))
    return section("published", "Beside published numbers", *parts)


def _references(run: ReportedRun, references: Sequence[Reference]) -> Html:
    rows: list[list[Content]] = []
    for reference in references:
        here, difference = _here(run, reference)
        when = "last epoch" if reference.at_epoch is None else f"epoch {reference.at_epoch}"
        views = "" if reference.views is None else f", {count(reference.views, 'view')}"
        rows.append(
            [
                prose(reference.what),
                reference.source,
                reference.unit,
                when + views,
                f"{reference.value:.2f}",
                here,
                difference,
            ]
        )
    header = ["reference", "source", "measure", "this run after", "published", "this run", "difference"]
    caption = "Published numbers, and this run's in the same measure; the difference is this run's less the published."
    return table(caption, header, rows, words=4, kind="stacked")


def _here(run: ReportedRun, reference: Reference) -> tuple[str, str]:
    """This run's number and its difference, or why there is none."""
    if run.record is None:
        return "not finished", ""
    found = compare_with_reference(RunGroup((run.record,)), reference)
    if isinstance(found, str):
        return found, ""
    return f"{found.median:.2f}", f"{found.median - reference.value:+.2f}".replace("-", "−")


def _evaluations(evaluations: Sequence[Evaluated]) -> Html:
    rows = [
        [
            ", ".join(each.checkpoint_names) or "not recorded",
            " ".join([str((each.data or {}).get("name") or ""), each.split]).strip(),
            str(each.views),
            f"{each.images:,}",
            percent(each.top1_error),
            percent(each.top5_error),
        ]
        for each in evaluations
    ]
    header = ["checkpoint", "images of", "views", "images", "top-1 error", "top-5 error"]
    return table("Evaluated after the training, from checkpoints.", header, rows, words=2, kind="stacked")


def end_section(run: ReportedRun, found: Examination) -> Section:
    """How the run ended, with what and from what it was made, and its command line."""
    ran = run.summary
    entries: list[tuple[str, Content]] = [("State", _state(run))]
    if ran:
        if ran.train_loss is not None and ran.validation_loss is not None:
            losses = f"{ran.train_loss:.4f} on the last batch, {ran.validation_loss:.4f} in validation"
            entries.append(("Loss", losses))
        steps = f"{count(ran.steps, 'step')}, " if ran.steps is not None else ""
        entries.append(("Training", f"{steps}{count(ran.epochs, 'epoch')} in {duration(ran.seconds)}"))
        entries.append(("Last checkpoint", code(ran.checkpoint)))
        entries.append(("Best checkpoint", joined([code(ran.best_checkpoint), ", by top-1 error in validation"])))
    entries.append(("Looked at here", checkpoint_in_words(found)))
    if ran:
        if ran.peak_memory_bytes_per_tower:
            memory = ", ".join(f"tower {t} {amount(size)}" for t, size in enumerate(ran.peak_memory_bytes_per_tower))
            entries.append(("Peak memory", f"{memory}, each of its device or process"))
        entries.append(("Versions", ", ".join(f"{name} {version}" for name, version in ran.versions.items())))
        entries.append(("Commit", code(ran.commit) if ran.commit else "not recorded"))
    if "compile" in run.said:
        entries.append(("Compiled", run.said["compile"]))
    parts: list[Content] = [terms(entries)]
    if run.record:
        remark = paragraph(REBUILT) if run.record.summary.command is None else None
        parts += [paragraph("The command that makes it again:"), block(run.record.command), remark]
    if run.configuration:
        written = yaml.safe_dump(dict(run.configuration), sort_keys=False, allow_unicode=True)
        parts.append(folded("The whole configuration", block(written)))
    return section("end", "The run's end", *parts)


def _state(run: ReportedRun) -> str:
    if run.record:
        return f"finished after {count(run.record.summary.epochs, 'epoch')}"
    if run.summary:
        return "finished once, and changed since"
    done = run.metrics.validations[-1].epoch if run.metrics.validations else 0
    of = f" of {run.recipe.epochs}" if run.recipe else ""
    why = f"; its log ends with: {run.said['ended']}" if "ended" in run.said else ""
    return f"not finished: {done}{of} epochs are done{why}"


def how_made(command: str, run: ReportedRun) -> Html:
    """What made the page, for its foot."""
    return paragraph("Made from ", code(str(run.folder)), " by ", code(command), "; nothing of it was written by hand.")
