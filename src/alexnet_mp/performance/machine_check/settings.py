"""The settings of `check`, what its parts share, and a result: a line of the table and an entry of the file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch

from alexnet_mp.common.schema import OutputFile, PositiveFloat, PositiveInt, from_mapping
from alexnet_mp.common.text import aligned
from alexnet_mp.network.table import Network
from alexnet_mp.parallel.link_test import Passage
from alexnet_mp.parallel.links import Link
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.parallel.placement import LinkChoice
from alexnet_mp.parallel.telemetry import Telemetry


@dataclass(frozen=True)
class CheckSettings:
    """The keys of `conf/check.yaml`, which says what they mean."""

    network: Network
    towers: int | None
    placement: str
    device: str
    link: LinkChoice
    parts: tuple[str, ...] | None
    batch_size: PositiveInt
    batch_sizes: tuple[PositiveInt, ...] | None
    rounds: PositiveInt
    repetitions: PositiveInt
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


class Speed(NamedTuple):
    """What one exchange of a passage takes: each tower sends `sent` bytes to all its peers, and receives as many."""

    passage: Passage
    sent: int
    seconds: float


@dataclass
class Check:
    """What the parts of a check share. Without `link` its test has not come to an end, or there is one tower."""

    settings: CheckSettings
    mesh: Mesh
    link: Link | None
    telemetry: Telemetry = field(default_factory=Telemetry)
    speeds: list[Speed] = field(default_factory=list)
    not_deterministic: list[str] = field(default_factory=list)

    @property
    def devices(self) -> list[torch.device]:
        """Those of the local towers, in tower order."""
        return list(self.mesh.placement.devices.values())


def check_table(results: Sequence[CheckResult]) -> str:
    """One line a check, and under a failed one what to do; what is long, as an error of CUDA, is cut."""
    rows = []
    for each in results:
        rows.append([each.name, each.result, " ".join(each.found.split())[:500]])
        if each.what_to_do:
            rows.append(["", "", " ".join(each.what_to_do.split())[:500]])
    first, _, *others = aligned(rows, text_columns=3)  # without a rule: the table has no head
    return "\n".join([first, *others])
