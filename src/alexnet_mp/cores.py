"""How many CPU cores there are for this process; apart from `machine.py` because worker processes do not need torch."""

import os


def usable_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
