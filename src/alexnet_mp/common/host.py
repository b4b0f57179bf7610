"""This machine: its name, cores, memory, allocator, clock and software versions.

torch is imported only by what asks about a GPU: the processes that decode pictures count cores here without it.
"""

import ctypes
import os
import platform
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from alexnet_mp.version import __version__

if TYPE_CHECKING:
    import torch


def device_name(device: "torch.device") -> str:
    """The maker's name of a GPU, or `CPU (<model>)`."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    table = Path("/proc/cpuinfo")
    lines = table.read_text("utf-8").splitlines() if table.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"CPU ({models[0] if models else platform.processor() or platform.machine()})"


def resident_bytes(which: Literal["now", "peak"]) -> int:
    """Resident memory of this process; its peak either way where the system is not Linux."""
    # Not ru_maxrss on Linux: a process inherits it from the one that started it.
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    field = {"now": "VmRSS:", "peak": "VmHWM:"}[which]
    line = next(line for line in status.read_text("utf-8").splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024  # the kernel's kB are KiB


def peak_device_bytes(device: "torch.device") -> int:
    """Peak memory that torch allocated on a GPU, or for a CPU the peak of this process."""
    if device.type != "cuda":
        return resident_bytes("peak")
    import torch

    return torch.cuda.max_memory_allocated(device)


def file_system(folder: Path) -> str:
    """The type of the file system that a folder is on, and of what: `ext4 on /dev/sda1`; empty if Linux is not."""
    table = Path("/proc/self/mounts")
    mounts = [line.split(" ") for line in table.read_text("utf-8").splitlines()] if table.exists() else []
    place = folder.resolve()
    # mounts(5): device, mount point, type; the last one on the longest path that leads to the folder is what is seen.
    over = [
        (len(where), number, f"{kind} on {what}")
        for number, (what, where, kind, *_) in enumerate(mounts)
        if place.is_relative_to(where)
    ]
    return max(over)[2] if over else ""


def versions() -> dict[str, str]:
    """What a figure was measured with: this library, Python, torch and NumPy."""
    import numpy
    import torch

    return {
        "alexnet_mp": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
    }


def usable_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_large_blocks() -> bool:
    """Let glibc's malloc reuse the memory of a step in the next one; returns whether it was told so.

    Activations and gradients are tens of megabytes each. By default glibc asks the kernel for every such block and
    gives it back when it is freed, so that each step pays for all its pages again: the kernel zeroes them one by one,
    on first touch. Here no block comes from `mmap`, and the heap is never trimmed; a process keeps the memory of its
    largest step, which it needs in the next one anyway. With another C library nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    # mallopt(3): it returns 1 on success. -1 becomes the largest threshold there is.
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))


def now(devices: "Sequence[torch.device]") -> float:
    """Seconds, once all that was queued on GPUs is done."""
    for device in devices:
        if device.type == "cuda":
            import torch

            torch.cuda.synchronize(device)
    return time.perf_counter()
