"""A run's numbers beside those that others published, and its evaluations after the training, as rows of tables."""

from collections.abc import Sequence
from typing import Any

from alexnet_mp.analysis.results.groups import Reference, RunGroup, compare_with_reference
from alexnet_mp.analysis.results.record import Evaluated, RunRecord
from alexnet_mp.common.text import count


def published_numbers(record: RunRecord | None, references: Sequence[Reference]) -> list[dict[str, Any]]:
    """Each `reference`, what it is compared `after`, what was `found`, or why there is nothing, and the `difference`.

    Without a record, the run has not finished.
    """
    rows = []
    for reference in references:
        after = "last epoch" if reference.at_epoch is None else f"epoch {reference.at_epoch}"
        after += "" if reference.views is None else f", {count(reference.views, 'view')}"
        found, difference = compare_with_reference(RunGroup((record,)), reference) if record else "not finished", ""
        if not isinstance(found, str):
            difference = f"{found.median - reference.value:+.2f}".replace("-", "−")
            found = f"{found.median:.2f}"
        rows.append({**vars(reference), "after": after, "found": found, "difference": difference})
    return rows


def evaluation_rows(evaluations: Sequence[Evaluated]) -> list[dict[str, Any]]:
    """Each evaluation, with its `checkpoint` or checkpoints and its `images_of`, a split of a data set, in words."""
    return [
        {
            **vars(each),
            "checkpoint": ", ".join(each.checkpoint_names) or "not recorded",
            "images_of": f"{(each.data or {}).get('name') or ''} {each.split}".strip(),
        }
        for each in evaluations
    ]
