"""What a process of the benchmark is told, and what it hands back: records that travel as JSON files."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from alexnet_mp.common.schema import from_mapping
from alexnet_mp.network.table import Network
from alexnet_mp.performance.benchmark.timed_link import Exchange


@dataclass(frozen=True)
class Task:
    """One turn of one variant; `threads` are a process's, `deadline_seconds` count from its start."""

    variant: str
    network: Network
    batch_size: int
    steps: int
    warmup_steps: int
    compile: bool
    device: str
    threads: int
    seed: int
    deadline_seconds: float


@dataclass(frozen=True)
class Sent:
    """Bytes of a process: of one tower over the crossings, gradients all-reduced, to a pipeline's other parts."""

    crossing: int = 0
    all_reduced: int = 0
    pipeline: int = 0

    def a_step(self, before: "Sent", steps: int) -> "Sent":
        """What was sent since `before` in each of so many steps."""
        return Sent(**{what: (count - getattr(before, what)) // steps for what, count in vars(self).items()})


@dataclass(frozen=True)
class Measurement:
    """What one process measured in one turn.

    Seconds are wall-clock time, averaged over the timed steps; with `together` the forward seconds are those of both
    passes. `peak_memory_bytes` is resident memory above what the process held once torch and this library were
    imported, from building the network on; on GPUs, the peak that torch allocated on the fullest one. Bytes are of a
    step: as counted, and those that one tower must send to all its peers by the network table. `exchanges` are those
    of all timed steps, None if nothing crosses; `parts` as in `step_parts.py`, None on GPUs.
    """

    steps: int
    forward_seconds: float
    backward_seconds: float
    optimizer_seconds: float
    together: bool
    peak_memory_bytes: int
    parameters: int
    sent: Sent
    table_crossing_bytes: int
    joules_per_step: float | None
    exchanges: tuple[Exchange, ...] | None
    parts: dict[str, float] | None
    threads: int
    devices: tuple[str, ...]

    @property
    def step_seconds(self) -> float:
        return self.forward_seconds + self.backward_seconds + self.optimizer_seconds


@dataclass(frozen=True)
class MatrixWork:
    """What one process needs for the matrix products of one step of its tower, each timed alone.

    `seconds` by product, for example `conv3 weight gradient`; `ways` names the way that was the fastest for it.
    """

    seconds: dict[str, float]
    ways: dict[str, str]
    threads: int

    @property
    def step_seconds(self) -> float:
        return sum(self.seconds.values())


_Record = TypeVar("_Record")
Turn = list[_Record]  # what each process handed back, in order of rank


def write_record(record: Task | Measurement | MatrixWork, path: Path) -> None:
    """Write a record as JSON, a network as its table."""

    def plain(value: Any) -> Any:
        return value.to_mapping() if isinstance(value, Network) else vars(value)

    path.write_text(json.dumps(record, default=plain), "utf-8")


def read_record(kind: type[_Record], path: Path) -> _Record:
    """Read what `write_record` wrote; raises ConfigurationError for anything else."""
    return from_mapping(kind, json.loads(path.read_text("utf-8")), "")
