"""The benchmark's clock."""

import time
from collections.abc import Sequence

import torch


def now(devices: Sequence[torch.device]) -> float:
    """Seconds, once all that was queued on GPUs is done."""
    for device in devices:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return time.perf_counter()
