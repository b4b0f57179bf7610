"""A device description: the rates, the memory and the link that a prediction needs, read from a YAML file."""

import dataclasses
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from alexnet_mp.common.presets import preset_names, preset_path
from alexnet_mp.common.schema import choice, from_mapping
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.performance.cost_model.software import GENERATIONS, Achieved
from alexnet_mp.performance.cost_model.traffic import PASSES


@dataclasses.dataclass(frozen=True)
class Link:
    """What connects two of the devices.

    `bandwidth` is bytes a second that a device sends while it receives as many, `achieved` the fraction of it that
    programs see, `latency_seconds` what an exchange of nothing takes. `all_reduce_bandwidth` is bytes a second that a
    device sends during an all-reduce, sums included; null: `bandwidth` times `achieved`. `compute_lost` is the fraction
    of a transfer's time that the device itself is busy with it: 0 where a copy engine does it, up to 1 where the same
    core has to.
    """

    name: str
    bandwidth: float
    latency_seconds: float
    achieved: float = 1.0
    all_reduce_bandwidth: float | None = None
    compute_lost: float = 0.0

    def seconds(self, payload: float) -> float:
        """Seconds to send `payload` bytes and receive as many."""
        return self.latency_seconds + payload / (self.bandwidth * self.achieved)

    def all_reduce_seconds(self, payload: float, members: int) -> float:
        """Seconds to sum `payload` bytes over `members` in a ring: each sends 2 (members - 1) / members of them."""
        rate = self.all_reduce_bandwidth or self.bandwidth * self.achieved
        return 2 * (members - 1) * self.latency_seconds + 2 * (members - 1) / members * payload / rate


@dataclasses.dataclass(frozen=True)
class Device:
    """One of `devices` equal devices.

    `peak_flops` has floating-point operations a second by precision; `software` names the generation whose achieved
    fractions hold (see `planning/software.py`), or `achieved` gives them. Bandwidth is bytes a second, and memory bytes
    of one device, of which `reserved_bytes` are not ours (context, libraries, workspace of the convolutions).
    `launch_seconds` is what every kernel costs besides its work. `passes` overrides the memory passes of a kind of row
    where they were measured. `one_process` is for the cores of a processor: one process can use all of them, at this
    fraction of their rates; null: a process on one device has that one alone. `between_nodes` is what connects a node
    of these devices with others, its bandwidth shared by the node's devices; null: not known.
    """

    name: str
    devices: int
    peak_flops: dict[str, float]
    memory_bandwidth: float
    memory_bytes: float
    link: Link
    software: str | None = None
    achieved: Achieved | None = None
    reserved_bytes: float = 0.0
    launch_seconds: float = 0.0
    passes: dict[str, float] = dataclasses.field(default_factory=dict)
    one_process: float | None = None
    between_nodes: Link | None = None

    @property
    def fractions(self) -> Achieved:
        """The achieved fractions in force."""
        if self.achieved is not None:
            return self.achieved
        assert self.software is not None, "load_device checks that one of the two is there"
        return GENERATIONS[self.software]

    def peak(self, precision: str) -> float:
        """Operations a second in `precision`. Raises ConfigurationError where the description has none."""
        if precision not in self.peak_flops:
            raise ConfigurationError(
                f"device {self.name} has no peak rate for precision={precision}; it has {', '.join(self.peak_flops)}"
            )
        return self.peak_flops[precision]

    def passes_of(self, kind: str) -> float:
        """Memory passes of a kind of row, forward and backward together."""
        return self.passes.get(kind, PASSES[kind].total)

    def as_one(self) -> "Device":
        """What one process has to itself: this device, or all cores of a processor at `one_process` of their rates."""
        if self.one_process is None:
            return self
        factor = self.devices * self.one_process
        return dataclasses.replace(
            self,
            peak_flops={precision: factor * rate for precision, rate in self.peak_flops.items()},
            memory_bandwidth=factor * self.memory_bandwidth,
            memory_bytes=self.devices * self.memory_bytes,
        )

    def shared_by(self, processes: int) -> "Device":
        """What each of several processes has of a core of a processor that they share: an equal part of everything.

        Pessimistic: what one waits for is time that another can compute in.
        """
        rate = self.link.all_reduce_bandwidth
        link = dataclasses.replace(
            self.link,
            bandwidth=self.link.bandwidth / processes,
            all_reduce_bandwidth=rate and rate / processes,
        )
        return dataclasses.replace(
            self,
            peak_flops={precision: peak / processes for precision, peak in self.peak_flops.items()},
            memory_bandwidth=self.memory_bandwidth / processes,
            memory_bytes=self.memory_bytes / processes,
            launch_seconds=self.launch_seconds * processes,
            link=link,
        )


def load_device(name_or_path: str | Path) -> Device:
    """Read a description: the name of a preset (`two_gtx_580`, ...) or the path of a YAML file.

    Raises ConfigurationError for an unknown preset, an unreadable file, an unknown key and an impossible number.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = preset_path(
            "hardware_descriptions", choice(str(name_or_path), preset_names("hardware_descriptions"), "hardware")
        )
    try:
        mapping = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, OmegaConfBaseException, YAMLError) as error:
        raise ConfigurationError(
            f"cannot read the device description {path}: {' '.join(str(error).split())}"
        ) from error
    return parse_device(mapping)


def parse_device(mapping: object) -> Device:
    """Check a description given as plain values and return it."""
    device = from_mapping(Device, mapping, "device")
    if (device.software is None) == (device.achieved is None):
        raise ConfigurationError(
            f"device {device.name}: give either software, one of {', '.join(GENERATIONS)}, or achieved with your own "
            "fractions, and not both"
        )
    if device.software is not None:
        choice(device.software, GENERATIONS, "device.software")
    for kind in device.passes:
        choice(kind, PASSES, "device.passes")
    if not device.peak_flops:
        raise ConfigurationError(f"device {device.name}: peak_flops is empty; give at least float32")
    for where, value in _positive(device):
        if value <= 0:
            raise ConfigurationError(f"device.{where} is {value:g}, must be positive")
    for where, value in _not_negative(device):
        if value < 0:
            raise ConfigurationError(f"device.{where} is {value:g}, must not be negative")
    for where, value in _fractions(device):
        if not 0 <= value <= 1:
            raise ConfigurationError(f"device.{where} is {value:g}, must be between 0 and 1")
    if device.reserved_bytes >= device.memory_bytes:
        raise ConfigurationError(
            f"device.reserved_bytes is {device.reserved_bytes:,.0f}, which leaves nothing of memory_bytes, "
            f"{device.memory_bytes:,.0f}"
        )
    return device


def _links(device: Device) -> dict[str, Link]:
    return {"link": device.link} | ({"between_nodes": device.between_nodes} if device.between_nodes else {})


def _positive(device: Device) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = [(f"peak_flops.{name}", rate) for name, rate in device.peak_flops.items()]
    found += [(name, getattr(device, name)) for name in ("devices", "memory_bandwidth", "memory_bytes")]
    found += [(f"achieved.{name}", value) for name, value in dataclasses.asdict(device.fractions).items()]
    for where, link in _links(device).items():
        found += [(f"{where}.{name}", getattr(link, name)) for name in ("bandwidth", "achieved")]
        if link.all_reduce_bandwidth is not None:
            found.append((f"{where}.all_reduce_bandwidth", link.all_reduce_bandwidth))
    if device.one_process is not None:
        found.append(("one_process", device.one_process))
    return found


def _not_negative(device: Device) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = [(name, getattr(device, name)) for name in ("reserved_bytes", "launch_seconds")]
    found += [(f"passes.{name}", value) for name, value in device.passes.items()]
    return found + [(f"{where}.latency_seconds", link.latency_seconds) for where, link in _links(device).items()]


def _fractions(device: Device) -> list[tuple[str, Any]]:
    # A convolution may achieve more than the peak: Winograd's algorithm does fewer operations than are counted.
    found: list[tuple[str, Any]] = [("achieved.memory", device.fractions.memory)]
    for where, link in _links(device).items():
        found += [(f"{where}.{name}", getattr(link, name)) for name in ("achieved", "compute_lost")]
    return found if device.one_process is None else [*found, ("one_process", device.one_process)]
