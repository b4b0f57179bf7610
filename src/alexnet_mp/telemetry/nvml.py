"""NVML, NVIDIA's management library: open it, find torch's devices in it, and read their state and energy.

Function names and units are those of the NVML API reference (docs.nvidia.com/deploy/nvml-api). What a device or driver
does not tell is None, and never an error: telemetry must not stop a training.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pynvml
import torch

# Not every failure of the binding is an NVMLError: a symbol that the driver lacks, or a name that is not UTF-8.
_FAILURES = (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError, UnicodeDecodeError)
_NOT_AVAILABLE = (pynvml.NVML_VALUE_NOT_AVAILABLE_uint.value, pynvml.NVML_VALUE_NOT_AVAILABLE_ulonglong.value)


class NvmlUnavailable(Exception):
    """NVML cannot be asked on this machine; the message says why."""


@dataclass(frozen=True)
class Gpu:
    """One GPU, or MIG instance, by NVML's handle: valid only while NVML is open."""

    handle: Any

    def name(self) -> str:
        """The maker's name."""
        return ask(pynvml.nvmlDeviceGetName, self.handle) or "unnamed GPU"

    def pci(self) -> tuple[int, int, int] | None:
        """PCI domain, bus and device."""
        info = ask(pynvml.nvmlDeviceGetPciInfo_v3, self.handle)
        return (info.domain, info.bus, info.device) if info else None


@dataclass(frozen=True)
class Memory:
    """A GPU's memory in bytes; `used` by all processes and the driver together."""

    total: int
    free: int
    used: int


@dataclass(frozen=True)
class Reading:
    """The state of a GPU at one moment; None for what it does not tell.

    `utilisation` is the fraction of the driver's last sample period (1/6 to 1 s) in which a kernel ran; `memory_bytes`
    what all processes and the driver use together.
    """

    utilisation: float | None = None
    memory_bytes: int | None = None
    power_watts: float | None = None
    temperature_celsius: int | None = None


@contextmanager
def open_nvml(attach: bool = True) -> Iterator[str]:
    """Hold NVML open and yield the driver's version. It counts its users, so it may be opened within itself.

    Without `attach` no GPU is woken and only the driver can be asked. Raises NvmlUnavailable without a library, a
    driver, or a driver that fits the library.
    """
    try:
        pynvml.nvmlInitWithFlags(0 if attach else pynvml.NVML_INIT_FLAG_NO_ATTACH)
    except _FAILURES as error:
        raise NvmlUnavailable(f"{_why(error)} ({error})") from error
    try:
        yield ask(pynvml.nvmlSystemGetDriverVersion) or "of unknown version"
    finally:
        ask(pynvml.nvmlShutdown)


def ask(question: Callable[..., Any], *arguments: object) -> Any:
    """NVML's answer, or None for whatever reason it gives none: not supported, not permitted, GPU lost, unknown."""
    try:
        return question(*arguments)
    except _FAILURES:
        return None


def find_gpu(device: torch.device) -> Gpu | None:
    """NVML's handle of a device of torch, or None for a CPU and for what NVML does not know.

    By UUID and never by index: NVML counts all GPUs in PCI order, torch those of CUDA_VISIBLE_DEVICES in its order.
    """
    if device.type != "cuda":
        return None
    uuid = torch.cuda.get_device_properties(device).uuid
    for kind in ("GPU", "MIG"):
        handle = ask(pynvml.nvmlDeviceGetHandleByUUID, f"{kind}-{uuid}")
        if handle:
            return Gpu(handle)
    return None


def read(gpu: Gpu) -> Reading:
    """What `gpu` tells of its state now."""
    rates = ask(pynvml.nvmlDeviceGetUtilizationRates, gpu.handle)
    percent = _number(rates.gpu) if rates else None
    memory = memory_of(gpu)
    milliwatts = _number(ask(pynvml.nvmlDeviceGetPowerUsage, gpu.handle))
    return Reading(
        utilisation=percent / 100 if percent is not None and percent <= 100 else None,
        memory_bytes=memory.used if memory else None,
        power_watts=milliwatts / 1000 if milliwatts is not None else None,
        temperature_celsius=_temperature(gpu),
    )


def memory_of(gpu: Gpu) -> Memory | None:
    """Total, free and used memory."""
    info = ask(pynvml.nvmlDeviceGetMemoryInfo, gpu.handle)
    if info is None or None in (_number(info.total), _number(info.free), _number(info.used)):
        return None
    return Memory(info.total, info.free, info.used)


def energy_joules(devices: Iterable[torch.device]) -> float | None:
    """Energy that these GPUs have used since the driver was loaded, each counted once; the caller takes differences.

    Newer GPUs renew their counter every 20 to 100 ms (petsc.org, PetscLogGpuEnergyMeter), so leave a second or more
    between two calls. None without an NVIDIA driver, and where a device does not count: CPUs, MIG instances, GPUs
    before Volta.
    """
    distinct = set(devices)
    if not distinct or any(device.type != "cuda" for device in distinct):
        return None
    try:
        with open_nvml():
            gpus = [find_gpu(device) for device in distinct]
            counts = [_number(ask(pynvml.nvmlDeviceGetTotalEnergyConsumption, gpu.handle)) for gpu in gpus if gpu]
    except NvmlUnavailable:
        return None
    millijoules = [count for count in counts if count is not None]
    return sum(millijoules) / 1000 if len(millijoules) == len(distinct) else None


def _temperature(gpu: Gpu) -> int | None:
    # The older function gives an unsigned number and leaves with CUDA 14; older drivers know no other.
    for question in (pynvml.nvmlDeviceGetTemperatureV, pynvml.nvmlDeviceGetTemperature):
        degrees = _number(ask(question, gpu.handle, pynvml.NVML_TEMPERATURE_GPU))
        if degrees is not None:
            return degrees
    return None


def _number(value: int | None) -> int | None:
    """`value`, unless it is the driver's word for "not available"."""
    return None if value in _NOT_AVAILABLE else value


def _why(error: Exception) -> str:
    reasons = {
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no NVIDIA driver found",
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded",
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the NVIDIA driver and its library are of different versions",
    }
    return reasons.get(getattr(error, "value", None), "NVML could not be opened")
