"""Recognizes turns during which something else took the machine: a fixed product is timed before and after each."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

TAKEN = 1.25  # so many times the least time that the product took in this run: the cores were not ours alone
_SIZE, _PRODUCTS = 1024, 20  # 43 billion operations, a fifth of a second on two cores


def seconds_of_fixed_work() -> float:
    """Seconds that a few matrix products take on all cores."""
    values = torch.ones(_SIZE, _SIZE)
    values @ values  # the threads start
    began = time.perf_counter()
    for _ in range(_PRODUCTS):
        values @ values
    return time.perf_counter() - began


@dataclass
class Calibration:
    """Whether the machine was taken, by the least `clock` gave in this run; `repeated` counts the turns thrown away."""

    clock: Callable[[], float] = seconds_of_fixed_work
    repeated: int = 0
    _least: float = field(default=math.inf)

    def is_taken(self) -> bool:
        """True if the fixed work takes much longer now than at its quickest."""
        seconds = self.clock()
        self._least = min(self._least, seconds)
        return seconds > TAKEN * self._least
