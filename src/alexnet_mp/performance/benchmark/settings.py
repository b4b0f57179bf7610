"""The settings of `split_vs_single`: the composed configuration, checked key by key."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_mp.common.schema import choice, from_mapping
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import Network, parse_network
from alexnet_mp.performance.benchmark.variants import VARIANTS


@dataclass(frozen=True)
class Setup:
    """What one comparison is of: the table, cut into its towers, and the global batch."""

    network: Network
    batch_size: int


@dataclass(frozen=True)
class BenchmarkSettings:
    """The keys of `conf/split_vs_single.yaml`, which says what they mean."""

    network: Network
    variants: tuple[str, ...] | None
    batch_size: int | tuple[int, ...]
    towers: int | tuple[int, ...] | None
    rounds: int | None
    steps: int
    warmup_steps: int
    compile: bool
    device: str
    threads: int | None
    seed: int
    deadline_seconds: float
    json: str | None
    chart: str | None

    def setups(self) -> list[Setup]:
        """Every batch size with every number of towers; the first is the one that the report leads with."""
        towers = [self.network.towers] if self.towers is None else _listed(self.towers)
        networks = [self.network.cut_into(count) for count in towers]
        return [Setup(network, batch_size) for network in networks for batch_size in _listed(self.batch_size)]


def parse_benchmark_settings(configuration: Mapping[str, Any]) -> BenchmarkSettings:
    """Check a composed configuration. Raises ConfigurationError that names the key, unknown variants included."""
    network = parse_network(configuration.get("network"))
    settings = from_mapping(BenchmarkSettings, configuration, "", ready={"network": network})
    network_cost(network)  # a window that does not fit is found here, before any process starts
    for name in ("rounds", "steps", "threads", "deadline_seconds"):
        value = getattr(settings, name)
        if value is not None and value <= 0:
            raise ConfigurationError(f"{name} is {value}, must be positive")
    for name in ("batch_size", "towers"):
        value = getattr(settings, name)
        counts = [] if value is None else _listed(value)
        if value is not None and (not counts or min(counts) < 1 or len(set(counts)) < len(counts)):
            raise ConfigurationError(f"{name} is {counts}; give one positive number, or several different ones")
    if settings.warmup_steps < 0:
        raise ConfigurationError(f"warmup_steps is {settings.warmup_steps}, must not be negative")
    choice(settings.device, ("auto", "cpu", "cuda"), "device")
    if settings.variants is not None:
        for name in settings.variants:
            choice(name, VARIANTS, "variants")
        if not settings.variants or len(set(settings.variants)) < len(settings.variants):
            raise ConfigurationError(
                f"variants is {list(settings.variants)}; name at least one of {', '.join(VARIANTS)}, each once"
            )
    for name in ("json", "chart"):
        path = getattr(settings, name)
        if path and not Path(path).absolute().parent.is_dir():
            raise ConfigurationError(f"{name}={path}: there is no folder {Path(path).absolute().parent}")
    return settings


def _listed(value: int | tuple[int, ...]) -> list[int]:
    return [value] if isinstance(value, int) else list(value)
