"""What this machine says of itself: device names, memory, and the versions of what runs on it."""

import platform
import resource
import sys
from pathlib import Path
from typing import Literal

import numpy
import torch

from alexnet_mp.version import __version__


def device_name(device: torch.device) -> str:
    """The maker's name of a GPU, or `CPU (<model>)`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"CPU ({models[0] if models else platform.processor() or platform.machine()})"


def resident_bytes(which: Literal["now", "peak"]) -> int:
    """Resident memory of this process; its peak either way where the system is not Linux."""
    # Not ru_maxrss on Linux: a process inherits it from the one that started it.
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    field = {"now": "VmRSS:", "peak": "VmHWM:"}[which]
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024  # the kernel's kB are KiB


def peak_device_bytes(device: torch.device) -> int:
    """Peak memory that torch allocated on a GPU, or for a CPU the peak of this process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident_bytes("peak")


def file_system(folder: Path) -> str:
    """The type of the file system that a folder is on, and of what: `ext4 on /dev/sda1`; empty where Linux is not."""
    table = Path("/proc/self/mounts")
    mounts = [line.split(" ") for line in table.read_text().splitlines()] if table.exists() else []
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
    return {
        "alexnet_mp": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
    }
