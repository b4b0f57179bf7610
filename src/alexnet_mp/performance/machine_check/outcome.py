"""What a check has found, as a line of the table and as an entry of the file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Result = Literal["pass", "fail", "measured", "not possible here"]


@dataclass(frozen=True)
class Outcome:
    """One check: `found` in words with the numbers, `numbers` by name with their unit, and what to do on a failure.

    `measured` is for what has no bound to be held against. The same in every process.
    """

    name: str
    result: Result
    found: str
    numbers: dict[str, float] = field(default_factory=dict)
    what_to_do: str = ""


def as_table(outcomes: Sequence[Outcome]) -> str:
    """One line a check, and under a failed one what to do."""
    lines = []
    widths = [max(len(text) for text in column) for column in zip(*((o.name, o.result) for o in outcomes), strict=True)]
    for outcome in outcomes:
        lines.append(f"{outcome.name:<{widths[0]}}  {outcome.result:<{widths[1]}}  {outcome.found}")
        if outcome.what_to_do:
            lines.append(f"{'':<{sum(widths) + 4}}{outcome.what_to_do}")
    return "\n".join(lines)
