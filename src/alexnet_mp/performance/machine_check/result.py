"""The result of a check: a line of the table and an entry of the file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from alexnet_mp.common.text import aligned


@dataclass(frozen=True)
class CheckResult:
    """One check: `found` in words with the numbers, `numbers` by name with their unit, and what to do on a failure.

    `measured` is for what has no bound to be held against. The same in every process.
    """

    name: str
    result: Literal["pass", "fail", "measured", "not possible here"]
    found: str
    numbers: dict[str, float] = field(default_factory=dict)
    what_to_do: str = ""


def check_table(results: Sequence[CheckResult]) -> str:
    """One line a check, and under a failed one what to do."""
    rows = []
    for each in results:
        rows.append([each.name, each.result, each.found])
        if each.what_to_do:
            rows.append(["", "", each.what_to_do])
    first, _, *others = aligned(rows, text_columns=3)  # without a rule: the table has no head
    return "\n".join([first, *others])
