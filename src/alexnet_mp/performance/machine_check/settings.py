"""The settings of `check`, key by key, and the result of each check: a line of the table and an entry of the file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from alexnet_mp.common.schema import OutputFile, PositiveFloat, PositiveInt, from_mapping
from alexnet_mp.common.text import aligned
from alexnet_mp.network.table import Network


@dataclass(frozen=True)
class CheckSettings:
    """The keys of `conf/check.yaml`, which says what they mean."""

    network: Network
    towers: int | None
    placement: str
    device: str
    batch_size: PositiveInt
    rounds: PositiveInt
    threads: PositiveInt | None
    seed: int
    timeout_seconds: PositiveFloat
    json: OutputFile | None


def parse_check_settings(configuration: Mapping[str, Any]) -> CheckSettings:
    """Check a composed configuration. Raises ConfigurationError that names the key, unknown ones included."""
    settings = from_mapping(CheckSettings, configuration, "")
    return replace(settings, network=settings.network.cut_into(settings.towers or settings.network.towers))


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
