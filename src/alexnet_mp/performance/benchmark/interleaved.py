"""Calls timed in turns within one process, and what their report has in common."""

import statistics
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from alexnet_mp.common.host import device_name, versions

Key = TypeVar("Key", bound=Hashable)


def seconds_interleaved(calls: Mapping[Key, Callable[[], object]], rounds: int) -> dict[Key, list[float]]:
    """The seconds of every call, round by round; before the first round each runs once, to warm up."""
    for call in calls.values():
        call()  # compiles, and has the allocator ask the kernel for memory
    seconds: dict[Key, list[float]] = {key: [] for key in calls}
    for _ in tqdm(range(rounds), unit="round", disable=not sys.stdout.isatty()):
        for key, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[key].append(time.perf_counter() - started)
    return seconds


def median_and_spread(seconds: list[float]) -> tuple[float, float]:
    """The median, and (max - min) / median."""
    middle = statistics.median(seconds)
    return middle, (max(seconds) - min(seconds)) / middle


def cpu_of_the_report() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "device": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
