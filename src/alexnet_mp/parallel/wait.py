"""Waits for a GPU no longer than a time-out, because it may itself wait for a process that is gone."""

import time
from collections.abc import Callable
from typing import Protocol

import torch

from alexnet_mp.errors import PeerLost

_PAUSE = 0.0001  # seconds between two questions: short beside a step, long beside a question


class Reached(Protocol):
    """A mark in a device's queue, as torch.cuda.Event is."""

    def query(self) -> bool:
        """True if the device has come to it."""


def wait_with_timeout(
    device: torch.device,
    seconds: float,
    mark: Callable[[torch.device], Reached] | None = None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Return when `device` has done what was asked of it so far. Raises PeerLost if `seconds` are not enough.

    Exchanges between GPUs are among it, and the first that reads a number from the GPU waits for them without any
    time-out. A CPU has done everything already. `mark` puts a mark at the end of the device's queue.
    """
    if device.type == "cpu":
        return
    reached, began = (mark or _mark)(device), clock()
    while not reached.query():
        if clock() - began > seconds:
            raise PeerLost(f"{device} did not finish its work within {seconds:g} s: another process hung or is gone")
        pause(_PAUSE)


def _mark(device: torch.device) -> Reached:
    event: Reached = torch.cuda.current_stream(device).record_event()
    return event
