"""How OpenMP's threads wait for each other: they spin, or sleep where others use the cores. Imports no torch."""

import os
from pathlib import Path


def choose_wait_policy(loadavg: Path = Path("/proc/loadavg")) -> None:
    """Set OMP_WAIT_POLICY to passive, before torch loads OpenMP, if more wants to run than there are cores.

    By default a thread that has come to the end of a layer's work spins for milliseconds. That is quicker (a step in
    one process by an eighth), unless the thread that it waits for has no core meanwhile: then steps take ten times as
    long (docs/performance.md). The environment's own OMP_WAIT_POLICY stays, and so does the default if the system does
    not say how much runs.
    """
    try:
        running = int(loadavg.read_text("utf-8").split()[3].partition("/")[0])
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's, which begin together
        threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    except (OSError, ValueError, IndexError, AttributeError):
        return
    if max(running - processes, 0) + processes * threads > (os.cpu_count() or 1):
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
