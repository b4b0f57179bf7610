"""GPUs as NVIDIA's driver describes them: their state and energy (NVML), and the link between two."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pynvml
import torch

from alexnet_mp.common.text import count

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
class Reading:
    """The state of a GPU at one moment; None for what it does not tell.

    `utilization` is the fraction of the driver's last sample period (1/6 to 1 s) in which a kernel ran; `memory_bytes`
    what all processes and the driver use together.
    """

    utilization: float | None = None
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
        utilization=percent / 100 if percent is not None and percent <= 100 else None,
        memory_bytes=memory.used if memory else None,
        power_watts=milliwatts / 1000 if milliwatts is not None else None,
        temperature_celsius=_temperature(gpu),
    )


def memory_of(gpu: Gpu) -> Any:
    """A GPU's memory in bytes, `total`, `free` and `used` by all processes and the driver; None if it does not tell."""
    info = ask(pynvml.nvmlDeviceGetMemoryInfo, gpu.handle)
    return None if info is None or None in map(_number, (info.total, info.free, info.used)) else info


def energy_joules(devices: Iterable[torch.device]) -> float | None:
    """Energy that these GPUs have used since the driver was loaded, each counted once; the caller takes differences.

    Newer GPUs renew their counter every 20 to 100 ms (petsc.org, PetscLogGpuEnergyMeter), so leave a second or more
    between two calls. None without an NVIDIA driver, and if a device does not count: CPUs, MIG instances, GPUs
    before Volta.
    """
    distinct = set(devices)
    if not distinct or any(device.type != "cuda" for device in distinct):
        return None
    try:
        with open_nvml():
            gpus = [find_gpu(device) for device in distinct]
            readings = [_number(ask(pynvml.nvmlDeviceGetTotalEnergyConsumption, gpu.handle)) for gpu in gpus if gpu]
    except NvmlUnavailable:
        return None
    millijoules = [joules for joules in readings if joules is not None]
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


_TOPOLOGY = {
    pynvml.NVML_TOPOLOGY_INTERNAL: "on one board",
    pynvml.NVML_TOPOLOGY_SINGLE: "through one PCIe switch",
    pynvml.NVML_TOPOLOGY_MULTIPLE: "through several PCIe switches",
    pynvml.NVML_TOPOLOGY_HOSTBRIDGE: "through one host bridge",
    pynvml.NVML_TOPOLOGY_NODE: "through the host bridges of one NUMA node",
    pynvml.NVML_TOPOLOGY_SYSTEM: "from one NUMA node to another",
}
# The binding's own NVML_P2P_CAPS_INDEX_READ is the tuple (0,), by a stray comma.
_READ = 0
_OK = "ok"
_PEER_STATUS = {
    pynvml.NVML_P2P_STATUS_OK: _OK,
    pynvml.NVML_P2P_STATUS_CHIPSET_NOT_SUPPORTED: "the chipset does not support it",
    pynvml.NVML_P2P_STATUS_GPU_NOT_SUPPORTED: "the GPU does not support it",
    pynvml.NVML_P2P_STATUS_IOH_TOPOLOGY_NOT_SUPPORTED: "the I/O hubs' topology does not support it",
    pynvml.NVML_P2P_STATUS_DISABLED_BY_REGKEY: "disabled in the driver's settings",
    pynvml.NVML_P2P_STATUS_NOT_SUPPORTED: "not supported",
}


def link_in_words(first: Gpu, second: Gpu, torch_peer: bool) -> str:
    """One phrase on the connection of two GPUs and one on peer access, beside torch's word for it, `torch_peer`."""
    return f"{_connection(first, second)}; {_peer_access(first, second)} (torch: {'yes' if torch_peer else 'no'})"


def _connection(first: Gpu, second: Gpu) -> str:
    """NVLink between exactly these two, or through the NVSwitches that join them, by its links; else PCIe.

    Through switches, it counts the links of the GPU that has fewer. PCIe is each GPU's own connection, and the nearest
    point that they share.
    """
    to_second, first_to_switch = _active_nvlinks(first, second.pci())
    if to_second:
        return f"NVLink, {count(to_second, 'link')}"
    joined = _peer_status(first, second, pynvml.NVML_P2P_CAPS_INDEX_NVLINK)
    _, second_to_switch = _active_nvlinks(second, first.pci())
    if first_to_switch and second_to_switch and joined in (_OK, None):  # a switch may join other pairs and not this one
        return f"NVLink through NVSwitch, {count(min(first_to_switch, second_to_switch), 'link')} each"
    if joined == _OK:
        return "NVLink, number of links not told"
    lanes = " and ".join(dict.fromkeys(map(_pcie_in_words, (first, second))))
    topology = _TOPOLOGY.get(ask(pynvml.nvmlDeviceGetTopologyCommonAncestor, first.handle, second.handle))
    return ", ".join(filter(None, (f"PCIe {lanes}", topology)))


def _peer_access(first: Gpu, second: Gpu) -> str:
    read, write = (_peer_status(first, second, what) for what in (_READ, pynvml.NVML_P2P_CAPS_INDEX_WRITE))
    if read is None and write is None:
        return "peer access not told"
    if read == write:
        return "peer access" if read == _OK else f"no peer access: {read}"
    return f"peer access: read {read or 'not told'}, write {write or 'not told'}"


def _active_nvlinks(gpu: Gpu, peer: tuple[int, int, int] | None) -> tuple[int, int]:
    """How many active NVLinks of `gpu` end at the PCI device `peer`, and how many at a switch."""
    to_peer = to_switch = 0
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        if ask(pynvml.nvmlDeviceGetNvLinkState, gpu.handle, link) != pynvml.NVML_FEATURE_ENABLED:
            continue
        remote = ask(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, gpu.handle, link)
        if remote and peer and (remote.domain, remote.bus, remote.device) == peer:
            to_peer += 1
        elif ask(pynvml.nvmlDeviceGetNvLinkRemoteDeviceType, gpu.handle, link) == pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
            to_switch += 1
    return to_peer, to_switch


def _peer_status(first: Gpu, second: Gpu, what: int) -> str | None:
    return _PEER_STATUS.get(ask(pynvml.nvmlDeviceGetP2PStatus, first.handle, second.handle, what))


def _pcie_in_words(gpu: Gpu) -> str:
    """A GPU's own PCIe connection, in use now and at most; an idle GPU lowers its generation."""
    now = _lanes(gpu, pynvml.nvmlDeviceGetCurrPcieLinkGeneration, pynvml.nvmlDeviceGetCurrPcieLinkWidth)
    most = _lanes(gpu, pynvml.nvmlDeviceGetMaxPcieLinkGeneration, pynvml.nvmlDeviceGetMaxPcieLinkWidth)
    return f"{now} (at most {most})" if most not in (now, _UNKNOWN_LANES) else now


_UNKNOWN_LANES = "of unknown generation and width"


def _lanes(gpu: Gpu, *questions: Callable[..., Any]) -> str:
    generation, width = (ask(question, gpu.handle) for question in questions)
    if generation is None and width is None:
        return _UNKNOWN_LANES
    return f"gen {generation or '?'} x{width or '?'}"
