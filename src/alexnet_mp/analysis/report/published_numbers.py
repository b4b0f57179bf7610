"""A run's numbers beside those that others published, and its evaluations after the training, as rows of tables."""

from collections.abc import Sequence
from dataclasses import dataclass

from alexnet_mp.analysis.results.groups import Group, Reference, compare
from alexnet_mp.analysis.results.record import Evaluated, RunRecord
from alexnet_mp.common.text import count


@dataclass(frozen=True)
class PublishedNumber:
    """A reference, and what the run found at the same place: `found` is its number, or why there is none."""

    what: str
    source: str
    unit: str
    after: str
    value: str
    found: str
    difference: str


@dataclass(frozen=True)
class EvaluationRow:
    """An evaluation after the training; errors are fractions."""

    checkpoint: str
    images_of: str
    views: int
    images: int
    top1_error: float
    top5_error: float


def published_numbers(record: RunRecord | None, references: Sequence[Reference]) -> list[PublishedNumber]:
    """The references with a run's numbers; without a record, the run has not finished."""
    rows = []
    for each in references:
        after = "last epoch" if each.at_epoch is None else f"epoch {each.at_epoch}"
        after += "" if each.views is None else f", {count(each.views, 'view')}"
        found, difference = compare(Group((record,)), each) if record else "not finished", ""
        if not isinstance(found, str):
            difference = f"{found.median - each.value:+.2f}".replace("-", "−")
            found = f"{found.median:.2f}"
        rows.append(PublishedNumber(each.what, each.source, each.unit, after, f"{each.value:.2f}", found, difference))
    return rows


def evaluation_rows(evaluations: Sequence[Evaluated]) -> list[EvaluationRow]:
    """What was evaluated, in the order of `evaluations`."""
    rows = []
    for each in evaluations:
        checkpoint = ", ".join(each.checkpoint_names) or "not recorded"
        images_of = f"{(each.data or {}).get('name') or ''} {each.split}".strip()
        rows.append(EvaluationRow(checkpoint, images_of, each.views, each.images, each.top1_error, each.top5_error))
    return rows
