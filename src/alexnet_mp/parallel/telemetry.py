"""Reports each tower's GPU: what it is at start-up, and its numbers in the metrics."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch

from alexnet_mp.common.gpu import (
    Gpu,
    NvmlUnavailable,
    Reading,
    find_gpu,
    link_in_words,
    memory_of,
    open_nvml,
    read,
)
from alexnet_mp.parallel.placement import Placement

# The driver itself averages utilization, and on newer GPUs power, over up to a second; and steps that are shorter than
# its answers shall not wait for one each.
READING_LASTS_SECONDS = 1.0
_LOG = logging.getLogger("alexnet_mp.parallel.telemetry")


@dataclass(frozen=True)
class Telemetry:
    """What a run knows of its GPUs: `words` for its announcement, and `metrics` to be called for each training line.

    `metrics` gives `tower<t>_gpu_{utilization,memory_bytes,power_watts,temperature_celsius}` for the towers of this
    process's replica, without what a GPU does not tell.
    """

    words: str = ""
    metrics: Callable[[], dict[str, float]] = dict


class TowerReadings:
    """Reads the towers' GPUs, at most once in READING_LASTS_SECONDS; in between, the last numbers again."""

    def __init__(self, gpus: dict[int, Gpu], clock: Callable[[], float] = time.monotonic) -> None:
        self._gpus = gpus
        self._clock = clock
        self._taken: float | None = None
        self._last: dict[str, float] = {}
        self._answering: set[int] = set()

    def __call__(self) -> dict[str, float]:
        now = self._clock()
        if self._taken is None or now - self._taken >= READING_LASTS_SECONDS:
            self._taken, self._last = now, self._read()
        return dict(self._last)

    def _read(self) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for tower, gpu in self._gpus.items():
            reading = read(gpu)
            if reading != Reading():
                self._answering.add(tower)
            elif tower in self._answering:
                self._answering.remove(tower)
                _LOG.warning("NVML: tower %d's GPU has stopped answering; metrics go without its numbers", tower)
            for name, value in asdict(reading).items():
                if value is not None:
                    numbers[f"tower{tower}_gpu_{name}"] = value
        return numbers


@contextmanager
def open_telemetry(placement: Placement) -> Iterator[Telemetry]:
    """Hold NVML open for a run; silent but for the main process, which also asks for its replica's other processes."""
    if not placement.is_main:
        yield Telemetry()
        return
    devices = placement.replica_devices
    on_gpu = any(device.type == "cuda" for device in devices.values())
    with ExitStack() as stack:
        try:
            version = stack.enter_context(open_nvml(attach=on_gpu))
        except NvmlUnavailable as why:
            yield Telemetry(f"{why}; {_WITHOUT}")
            return
        if not on_gpu:
            yield Telemetry(f"driver {version}, but no tower is on a GPU; {_WITHOUT}")
            return
        gpus = {tower: find_gpu(device) for tower, device in devices.items()}
        lines = [f"driver {version}", *_gpus_in_words(gpus), *_links_in_words(devices, gpus)]
        yield Telemetry("\n".join(lines), TowerReadings({tower: gpu for tower, gpu in gpus.items() if gpu}))


_WITHOUT = "metrics go without utilization, memory, power and temperature"


def _gpus_in_words(gpus: dict[int, Gpu | None]) -> list[str]:
    return [
        f"tower {tower}: {_gpu_in_words(gpu) if gpu else 'a GPU that NVML does not know'}"
        for tower, gpu in gpus.items()
    ]


def _gpu_in_words(gpu: Gpu) -> str:
    memory, pci = memory_of(gpu), gpu.pci()
    where = f" at {pci[0]:08x}:{pci[1]:02x}:{pci[2]:02x}" if pci else ""
    free = f"{_gib(memory.free)} of {_gib(memory.total)} GiB free" if memory else "memory not told"
    return f"{gpu.name()}{where}, {free}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"


def _links_in_words(devices: dict[int, torch.device], gpus: dict[int, Gpu | None]) -> list[str]:
    """One line for each pair of neighboring towers whose GPUs are two and both known."""
    lines = []
    for (tower, gpu), (next_tower, next_gpu) in pairwise(gpus.items()):
        first, second = devices[tower], devices[next_tower]
        if gpu and next_gpu and first != second:
            words = link_in_words(gpu, next_gpu, torch.cuda.can_device_access_peer(first, second))
            lines.append(f"towers {tower} and {next_tower}: {words}")
    return lines
