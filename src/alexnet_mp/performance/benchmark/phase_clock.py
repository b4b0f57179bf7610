"""Times the phases of training steps without waiting for a GPU in between: by events in its queue."""

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from alexnet_mp.common.host import now


class PhaseClock:
    """Marks the ends of phases: by the clock on CPUs, by an event in the current stream of each GPU.

    Starts once all that was queued is done, and waits for the GPUs a second time in `seconds`, and never between.
    """

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self._gpus = sorted({device for device in devices if device.type == "cuda"}, key=str)
        self._marks: list[list[Any]] = []  # of each GPU, or of this process
        now(self._gpus)
        self.mark()

    def mark(self) -> None:
        """A phase ends here, and the next one begins."""
        if not self._gpus:
            self._marks.append([time.perf_counter()])
            return
        events = [torch.cuda.Event(enable_timing=True) for _ in self._gpus]
        for gpu, event in zip(self._gpus, events, strict=True):
            event.record(torch.cuda.current_stream(gpu))
        self._marks.append(events)

    def seconds(self, phases: int) -> list[float]:
        """The seconds of each of so many phases, which took turns; of the GPU that took longest in all."""
        now(self._gpus)
        of_devices = []
        for marks in zip(*self._marks, strict=True):
            spans = [_between(*pair) for pair in pairwise(marks)]
            of_devices.append([sum(spans[phase::phases]) for phase in range(phases)])
        return max(of_devices, key=sum)


def _between(begin: Any, end: Any) -> float:
    return float(end - begin if isinstance(begin, float) else begin.elapsed_time(end) / 1e3)
