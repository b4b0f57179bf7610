"""The settings of `split_vs_single`: the composed configuration, checked key by key."""

from dataclasses import dataclass, replace
from typing import Literal

from alexnet_mp.common.schema import NonNegativeInt, OutputFile, PositiveFloat, PositiveInt, choice
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.table import Network
from alexnet_mp.performance.benchmark.variants import SPLIT, VARIANTS


@dataclass(frozen=True)
class Setup:
    """What one comparison is of: the table, cut into its towers, and the global batch.

    If the number of processes is what is compared, `processes` is one of them: as many replicas as their towers make,
    or all towers in one process. None: every variant has its own number of processes.
    """

    network: Network
    batch_size: int
    processes: int | None = None

    @property
    def replicas(self) -> int:
        """How many the processes hold, one for each tower; one process holds all towers."""
        return max(1, (self.processes or 1) // self.network.towers)


@dataclass(frozen=True)
class BenchmarkSettings:
    """The keys of `conf/benchmark/split_vs_single.yaml`, which says what they mean."""

    network: Network
    variants: tuple[str, ...] | None
    batch_size: int | tuple[int, ...]
    towers: int | tuple[int, ...] | None
    processes: tuple[PositiveInt, ...] | None
    batch_scaling: Literal["fixed", "linear"]
    hardware: str | None
    rounds: PositiveInt | None
    repeats: NonNegativeInt
    steps: PositiveInt
    warmup_steps: NonNegativeInt
    compile: bool
    device: Literal["auto", "cpu", "cuda"]
    threads: PositiveInt | None
    seed: int
    deadline_seconds: PositiveFloat
    json: OutputFile | None
    chart: OutputFile | None

    def __post_init__(self) -> None:
        for name in ("batch_size", "towers"):
            counts = _listed(getattr(self, name))
            if getattr(self, name) is not None and not _different_and_positive(counts):
                raise ConfigurationError(f"{name} is {counts}; give one positive number, or several different ones")
        for variant in self.variants or ():
            choice(variant, VARIANTS, "variants")
        if self.variants is not None and len(set(self.variants)) < max(len(self.variants), 1):
            raise ConfigurationError(
                f"variants is {list(self.variants)}; name at least one of {', '.join(VARIANTS)}, each once"
            )
        if self.processes is not None:
            self._check_processes(self.processes)
        elif self.hardware is not None or self.batch_scaling != "fixed":
            raise ConfigurationError(
                "hardware and batch_scaling are for processes=[1,...], which compares numbers of them"
            )

    def _check_processes(self, processes: tuple[int, ...]) -> None:
        if processes[:1] != (1,) or not _different_and_positive(processes):
            raise ConfigurationError(f"processes is {list(processes)}; begin with 1, to compare with, each once")
        if self.variants not in (None, (SPLIT,)) or self.device == "cuda" or self.chart is not None:
            raise ConfigurationError(f"processes compares {SPLIT} on CPUs, without a chart; leave those keys out")
        if isinstance(self.batch_size, tuple) or isinstance(self.towers, tuple):
            raise ConfigurationError("processes needs one batch_size and one number of towers, not lists")
        for setup in self.setups():
            towers, count = setup.network.towers, setup.processes or 1
            if count > 1 and count % towers:
                raise ConfigurationError(
                    f"{count} processes cannot hold replicas of {towers} towers, one each; use 1 or multiples"
                )
            if setup.batch_size % setup.replicas:
                raise ConfigurationError(
                    f"batch_size={setup.batch_size} cannot be shared equally by {setup.replicas} replicas"
                )

    def setups(self) -> list[Setup]:
        """Every batch size with every number of towers, or of processes; a report leads with the first."""
        networks = [self.network.cut_into(count) for count in _listed(self.towers) or [self.network.towers]]
        if self.processes is None:
            return [Setup(network, batch_size) for network in networks for batch_size in _listed(self.batch_size)]
        (network,), (batch_size,) = networks, _listed(self.batch_size)
        setups = [Setup(network, batch_size, count) for count in self.processes]
        linear = self.batch_scaling == "linear"
        return [replace(each, batch_size=batch_size * each.replicas) if linear else each for each in setups]


def _different_and_positive(counts: "list[int] | tuple[int, ...]") -> bool:
    return len(counts) > 0 and min(counts) > 0 and len(set(counts)) == len(counts)


def _listed(value: int | tuple[int, ...] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)
