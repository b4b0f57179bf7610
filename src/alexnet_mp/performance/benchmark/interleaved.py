"""The timing loop: calls timed in turns within one process."""

import sys
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from tqdm import tqdm

_Key = TypeVar("_Key", bound=Hashable)


def seconds_interleaved(
    calls: Mapping[_Key, Callable[[], object]],
    rounds: int,
    warmup_rounds: int = 1,
    before: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[_Key, list[float]]:
    """The seconds of every call, round by round, after rounds to warm up; `before` each call, untimed, comes `before`.

    The first call of each compiles, and has the allocator ask the kernel for memory. `clock` may wait for a GPU.
    """
    seconds: dict[_Key, list[float]] = {key: [] for key in calls}
    for number in tqdm(range(warmup_rounds + rounds), unit="round", leave=False, disable=not sys.stdout.isatty()):
        for key, call in calls.items():
            before()
            started = clock()
            call()
            if number >= warmup_rounds:
                seconds[key].append(clock() - started)
    return seconds
