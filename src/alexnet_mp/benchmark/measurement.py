"""What the process of a contender is told, and what it hands back: two records that travel as JSON files."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from alexnet_mp.network.table import Network, parse_network
from alexnet_mp.strict import from_mapping


@dataclass(frozen=True)
class Task:
    """One turn of one contender; `threads` are a process's, `deadline_seconds` count from its start."""

    contender: str
    network: Network
    batch_size: int
    steps: int
    warmup_steps: int
    device: str
    threads: int
    seed: int
    deadline_seconds: float

    def write(self, path: Path) -> None:
        path.write_text(json.dumps({**asdict(self), "network": self.network.to_mapping()}))

    @classmethod
    def read(cls, path: Path) -> "Task":
        mapping = json.loads(path.read_text())
        return from_mapping(cls, mapping, "", ready={"network": parse_network(mapping["network"])})


@dataclass(frozen=True)
class Measurement:
    """What one process measured in one turn.

    Seconds are wall-clock time, averaged over the timed steps. `peak_memory_bytes` is resident memory above what the
    process held once torch and this library were imported, from building the network on; on GPUs, the peak that torch
    allocated on the fullest one. Crossing bytes are what one tower sends to all its peers in a step: counted on the
    link, and by the network table.
    """

    forward_seconds: float
    backward_seconds: float
    optimiser_seconds: float
    peak_memory_bytes: int
    parameters: int
    crossing_bytes_per_step: int
    table_crossing_bytes_per_step: int
    threads: int
    devices: tuple[str, ...]

    @property
    def step_seconds(self) -> float:
        return self.forward_seconds + self.backward_seconds + self.optimiser_seconds

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Measurement":
        return from_mapping(cls, json.loads(path.read_text()), "")
