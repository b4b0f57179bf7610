"""The device that a tower computes on: uploads that do not wait, its threads, its precision, its memory format."""

import logging
from typing import Literal

import torch
from torch import Tensor

from alexnet_mp.common.host import usable_cores
from alexnet_mp.common.text import count

_LOG = logging.getLogger("alexnet_mp.common.device")

Precision = Literal["float32", "tf32", "bf16", "float64"]

# Tensor cores take float32 (as TF32) and bfloat16 from compute capability 8.0 on, in channels_last; what is older is
# faster in the contiguous format (PyTorch's channels_last tutorial; NVIDIA, "Convolutional Layers User's Guide").
_CHANNELS_LAST_FROM = (8, 0)


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; every copy from the host in a step goes through here.

    The host does not wait for it if `tensor` lies in pinned memory.
    """
    return tensor.to(device, non_blocking=True)


def set_precision(precision: Precision) -> None:
    """Let GPUs compute convolutions and matrix products alike in TF32, or neither of them.

    By PyTorch's default convolutions would be in TF32 and products in float32.
    """
    # By these two: torch.compile fails after the newer `fp32_precision` was set (pytorch#166387, #189955).
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True  # shapes stay the same throughout a run


def use_threads(threads: int | None, processes: int = 1, says: bool = True) -> None:
    """Compute with so many CPU threads, or if None, as torch and torchrun have chosen.

    One that `says` it for the `processes` of this machine warns of more threads than cores.
    """
    if threads is None:
        return
    torch.set_num_threads(threads)
    cores = usable_cores()
    if says and threads * processes > cores:
        of_each = f" of each of {processes} processes" if processes > 1 else ""
        text = "threads=%d%s on %s is slower than one thread a core: threads=%d"
        _LOG.warning(text, threads, of_each, count(cores, "core"), max(1, cores // processes))


def memory_format_of_maps(device: torch.device) -> torch.memory_format:
    """The memory format in which convolutions on `device` are fastest; weights follow maps.

    On CPUs channels_last is faster for convolution, pooling and LRN alike (docs/performance.md).
    """
    old = device.type == "cuda" and torch.cuda.get_device_capability(device) < _CHANNELS_LAST_FROM
    return torch.contiguous_format if old else torch.channels_last
