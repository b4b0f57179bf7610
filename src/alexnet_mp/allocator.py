"""The memory allocator of a process that trains on a CPU: told to keep large blocks instead of giving them back."""

import ctypes
import sys

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
