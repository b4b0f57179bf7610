"""A hardware description: the rates, the memory and the link that a prediction needs, read from a YAML file."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from alexnet_mp.common.presets import read_preset
from alexnet_mp.common.schema import Bound, PositiveInt, choice, from_mapping
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.rows import KINDS
from alexnet_mp.performance.cost_model.software import FRACTION, GENERATIONS, OTHER_PASSES, PASSES, Achieved, Rate

# A folder called `hardware` would make Hydra take `hardware=FILE` for a preset's name.
PRESETS = "hardware_descriptions"
Amount = Annotated[float, Bound("not be negative", lambda value: value >= 0)]


@dataclass(frozen=True)
class DeviceLink:
    """What connects two of the devices.

    `bandwidth` is bytes a second that a device sends while it receives as many, `achieved` the fraction of it that
    programs see, `latency_seconds` what an exchange of nothing takes. `all_reduce_bandwidth` is bytes a second that a
    device sends during an all-reduce, sums included; null: `bandwidth` times `achieved`. `compute_lost` is the fraction
    of a transfer's time that the device itself is busy with it: 0 if a copy engine does it, up to 1 if the same core
    has to.
    """

    name: str
    bandwidth: Rate
    latency_seconds: Amount
    achieved: Annotated[Rate, FRACTION] = 1.0
    all_reduce_bandwidth: Rate | None = None
    compute_lost: Annotated[float, FRACTION] = 0.0

    @property
    def all_reduce_rate(self) -> float:
        """Bytes a second that a device sends during an all-reduce."""
        return self.all_reduce_bandwidth or self.bandwidth * self.achieved

    def seconds(self, payload: float) -> float:
        """Seconds to send `payload` bytes and receive as many."""
        return self.latency_seconds + payload / (self.bandwidth * self.achieved)

    def all_reduce_seconds(self, payload: float, members: int) -> float:
        """Seconds to sum `payload` bytes over `members` in a ring: each sends 2 (members - 1) / members of them."""
        turns = 2 * (members - 1)
        return turns * self.latency_seconds + turns / members * payload / self.all_reduce_rate


@dataclass(frozen=True)
class Hardware:
    """One of `devices` equal devices.

    `peak_flops` has floating-point operations a second by precision; `software` names the generation whose achieved
    fractions hold (see `cost_model/software.py`), or `achieved` gives them. Bandwidth is bytes a second, and memory
    bytes of one device, of which `reserved_bytes` are not ours (context, libraries, workspace of the convolutions).
    `launch_seconds` is what every operation costs the host; `asynchronous`: it launches them ahead of the device, and
    the longer of both counts; else the device waits for each. `passes` overrides the memory passes of a kind of row if
    they were measured. `one_process` is for the cores of a processor: one process can use all of them, at this
    fraction of their rates; null: a process on one device has that one alone. `between_nodes` is what connects a node
    of these devices with others, its bandwidth shared by the node's devices; null: not known.

    Raises ConfigurationError for fractions given twice or not at all, an unknown generation or kind of row, no peak
    rate, and nothing left of the memory.
    """

    name: str
    devices: PositiveInt
    peak_flops: dict[str, Rate]
    memory_bandwidth: Rate
    memory_bytes: Rate
    link: DeviceLink
    software: str | None = None
    achieved: Achieved | None = None
    reserved_bytes: Amount = 0.0
    launch_seconds: Amount = 0.0
    asynchronous: bool = True
    passes: dict[str, Amount] = field(default_factory=dict)
    one_process: Annotated[Rate, FRACTION] | None = None
    between_nodes: DeviceLink | None = None

    def __post_init__(self) -> None:
        if (self.software is None) == (self.achieved is None):
            raise ConfigurationError(
                f"hardware {self.name}: give either software, one of {', '.join(GENERATIONS)}, or achieved with your "
                "own fractions, and not both"
            )
        if self.software is not None:
            choice(self.software, GENERATIONS, "hardware.software")
        for kind in self.passes:
            choice(kind, [*PASSES, *(word for word, row in KINDS.items() if not row.has_weights)], "hardware.passes")
        if not self.peak_flops:
            raise ConfigurationError(f"hardware {self.name}: peak_flops is empty; give at least float32")
        if self.reserved_bytes >= self.memory_bytes:
            raise ConfigurationError(
                f"hardware.reserved_bytes is {self.reserved_bytes:,.0f}, which leaves nothing of memory_bytes, "
                f"{self.memory_bytes:,.0f}"
            )

    @property
    def fractions(self) -> Achieved:
        """The achieved fractions in force."""
        return self.achieved or GENERATIONS[str(self.software)]

    def peak(self, precision: str) -> float:
        """Operations a second in `precision`. Raises ConfigurationError if the description has none."""
        if precision not in self.peak_flops:
            raise ConfigurationError(
                f"hardware {self.name} has no peak rate for precision={precision}; it has {', '.join(self.peak_flops)}"
            )
        return self.peak_flops[precision]

    @property
    def waits_for_launch(self) -> float:
        """Seconds that the device itself loses with every operation."""
        return 0.0 if self.asynchronous else self.launch_seconds

    def passes_of(self, kind: str) -> float:
        """Memory passes of a kind of row, forward and backward together."""
        return self.passes.get(kind, PASSES.get(kind, OTHER_PASSES).total)

    def as_one(self) -> "Hardware":
        """What one process has to itself: this device, or all cores of a processor at `one_process` of their rates."""
        if self.one_process is None:
            return self
        return self._scaled(self.devices * self.one_process, memory=self.devices)

    def shared_by(self, processes: int) -> "Hardware":
        """What each of several processes has of a core of a processor that they share: an equal part of everything.

        Pessimistic: what one waits for is time that another can compute in.
        """
        rate = self.link.all_reduce_bandwidth
        link = replace(self.link, bandwidth=self.link.bandwidth / processes)
        link = replace(link, all_reduce_bandwidth=rate and rate / processes)
        part = self._scaled(1 / processes, memory=1 / processes)
        return replace(part, launch_seconds=self.launch_seconds * processes, link=link)

    def _scaled(self, rates: float, memory: float) -> "Hardware":
        peaks = {precision: rates * peak for precision, peak in self.peak_flops.items()}
        scaled = replace(self, peak_flops=peaks, memory_bandwidth=rates * self.memory_bandwidth)
        return replace(scaled, memory_bytes=memory * self.memory_bytes)


def load_hardware(name_or_path: str | Path) -> Hardware:
    """Read a description: the name of a preset (`two_gtx_580`, ...) or the path of a YAML file.

    Raises ConfigurationError for an unknown preset, an unreadable file, an unknown key and an impossible number.
    """
    mapping = read_preset(PRESETS, name_or_path, "hardware", "hardware description")
    return from_mapping(Hardware, mapping, "hardware")
