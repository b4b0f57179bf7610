"""libnvidia-ml.so without a GPU: C functions by the NVML API reference, put where pynvml keeps the library it loaded.

pynvml's own functions run unchanged against it, so that ctypes refuses a wrong argument or structure.
"""

import ctypes
import uuid
from collections import Counter
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, c_char, c_char_p, c_int, c_uint, c_uint64, c_void_p
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml
import torch

from alexnet_mp.parallel.placement import Placement
from alexnet_mp.parallel.telemetry import open_telemetry

DEVICE = pynvml.c_nvmlDevice_t
OK, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NOT_FOUND = 0, 1, 2, 3, 6  # nvmlReturn_t
DRIVER_NOT_LOADED, GPU_IS_LOST, VERSION_MISMATCH = 9, 15, 18
READ, WRITE, NVLINK = 0, 1, 2  # nvmlGpuP2PCapsIndex_t
TO_GPU, TO_SWITCH = 0, 2  # nvmlIntNvLinkDeviceType_t
SWITCH = (0, 0xC0, 0)
FIRST_HANDLE = 0x5000
CUDA = [torch.device("cuda", index) for index in range(4)]
UUID = "GPU-00000000-0000-0000-0000-00000000000"
PEERS = {READ: 0, WRITE: 0, NVLINK: 5}  # access over PCIe; 5: not supported
WITHOUT = "metrics go without utilization, memory, power and temperature"
STATE = {
    "utilization": "nvmlDeviceGetUtilizationRates",
    "memory_bytes": "nvmlDeviceGetMemoryInfo",
    "power_watts": "nvmlDeviceGetPowerUsage",
    "temperature_celsius": "nvmlDeviceGetTemperatureV",
}
VERSION_1_OF_12_BYTES = 12 | 1 << 24  # NVML_STRUCT_VERSION(Temperature, 1): three ints


@dataclass
class NvLink:
    """One link of a GPU: what it ends at, and whether it is up."""

    pci: tuple[int, int, int]
    kind: int = TO_GPU
    active: bool = True


@dataclass
class FakeGpu:
    """What one GPU answers, in NVML's units; `errors` gives the return code of functions that fail instead."""

    uuid: str
    pci: tuple[int, int, int] = (0, 1, 0)
    name: str = "NVIDIA Test GPU"
    memory: tuple[int, int, int] = (80 * 2**30, 79 * 2**30, 2**30)  # total, free, used
    percent: int = 37
    milliwatts: int = 250_500
    celsius: int = 41
    millijoules: int = 7_000
    pcie: tuple[int, int, int, int] = (4, 16, 4, 16)  # generation and width now, at most
    nvlinks: list[NvLink] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def torch_uuid(self) -> uuid.UUID:
        """As torch.cuda.get_device_properties gives it: its text has no prefix."""
        return uuid.UUID(self.uuid.split("-", 1)[1])


class FakeNvml:
    """The library of a machine with these GPUs, in NVML's order. `calls` counts every call by name."""

    def __init__(
        self,
        *gpus: FakeGpu,
        init: int = OK,
        topology: int = 30,
        peer: dict[int, int] | None = None,
        missing: tuple[str, ...] = (),
    ) -> None:
        self.gpus, self.init, self.topology, self.peer = gpus, init, topology, peer
        self.users, self.attached = 0, False
        self.calls: Counter[str] = Counter()
        self.bugs: list[Exception] = []
        self._text = ctypes.create_string_buffer(b"a code from the future")
        for name, (types, function) in self._functions().items():
            if name not in missing:
                setattr(self, name, CFUNCTYPE(c_int, *types)(self._guarded(name, function)))
        self.nvmlErrorString = CFUNCTYPE(c_void_p, c_int)(lambda code: ctypes.addressof(self._text))

    def _guarded(self, name: str, function: Callable[..., int]) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            self.calls[name] += 1
            try:
                return function(*arguments)
            except Exception as error:  # ctypes would print it and return 0
                self.bugs.append(error)
                return 999

        return call

    def _functions(self) -> dict[str, tuple[tuple[Any, ...], Callable[..., int]]]:
        text, number = (POINTER(c_char), c_uint), POINTER(c_uint)

        def of_device(name: str, *types: Any, tell: Callable[..., int | None]) -> tuple[tuple[Any, ...], Any]:
            def function(handle: Any, *arguments: Any) -> int:
                gpu = self._gpu(handle)
                return gpu.errors.get(name) or tell(gpu, *arguments) or OK

            return (DEVICE, *types), function

        plain = {
            "nvmlInitWithFlags": ((c_uint,), self._open),
            "nvmlShutdown": ((), self._close),
            "nvmlSystemGetDriverVersion": (text, lambda out, size: _write(out, size, "570.86.15")),
            "nvmlDeviceGetHandleByUUID": ((c_char_p, POINTER(DEVICE)), self._handle_by_uuid),
            "nvmlDeviceGetHandleByIndex_v2": ((c_uint, POINTER(DEVICE)), self._handle_by_index),
        }
        telling: dict[str, tuple[tuple[Any, ...], Callable[..., int | None]]] = {
            "nvmlDeviceGetName": (text, lambda gpu, out, size: _write(out, size, gpu.name)),
            "nvmlDeviceGetPciInfo_v3": ((POINTER(pynvml.nvmlPciInfo_t),), lambda gpu, out: _write_pci(out, gpu.pci)),
            "nvmlDeviceGetMemoryInfo": ((POINTER(pynvml.c_nvmlMemory_t),), _write_memory),
            "nvmlDeviceGetUtilizationRates": ((POINTER(pynvml.c_nvmlUtilization_t),), _write_rates),
            "nvmlDeviceGetPowerUsage": ((number,), lambda gpu, out: _set(out, gpu.milliwatts)),
            "nvmlDeviceGetTemperature": ((c_uint, number), lambda gpu, sensor, out: _set(out, gpu.celsius)),
            "nvmlDeviceGetTemperatureV": ((POINTER(pynvml.c_nvmlTemperature_v1_t),), _write_temperature),
            "nvmlDeviceGetTotalEnergyConsumption": (
                (POINTER(c_uint64),),
                lambda gpu, out: _set(out, gpu.millijoules),
            ),
            "nvmlDeviceGetCurrPcieLinkGeneration": ((number,), lambda gpu, out: _set(out, gpu.pcie[0])),
            "nvmlDeviceGetCurrPcieLinkWidth": ((number,), lambda gpu, out: _set(out, gpu.pcie[1])),
            "nvmlDeviceGetMaxPcieLinkGeneration": ((number,), lambda gpu, out: _set(out, gpu.pcie[2])),
            "nvmlDeviceGetMaxPcieLinkWidth": ((number,), lambda gpu, out: _set(out, gpu.pcie[3])),
            "nvmlDeviceGetTopologyCommonAncestor": ((DEVICE, number), lambda gpu, other, out: _set(out, self.topology)),
            "nvmlDeviceGetP2PStatus": ((DEVICE, c_uint, number), self._peer_status),
            "nvmlDeviceGetNvLinkState": ((c_uint, number), lambda gpu, i, out: _link(gpu, i, out, _write_state)),
            "nvmlDeviceGetNvLinkRemotePciInfo_v2": (
                (c_uint, POINTER(pynvml.nvmlPciInfo_t)),
                lambda gpu, i, out: _link(gpu, i, out, lambda link, out: _write_pci(out, link.pci)),
            ),
            "nvmlDeviceGetNvLinkRemoteDeviceType": (
                (c_uint, number),
                lambda gpu, i, out: _link(gpu, i, out, lambda link, out: _set(out, link.kind)),
            ),
        }
        return {**plain, **{name: of_device(name, *types, tell=tell) for name, (types, tell) in telling.items()}}

    def _open(self, flags: int) -> int:
        if self.init == OK:
            self.users += 1
            self.attached |= not flags & 2  # NVML_INIT_FLAG_NO_ATTACH
        return self.init

    def _close(self) -> int:
        self.users -= 1
        self.attached &= self.users > 0
        return OK if self.users >= 0 else UNINITIALIZED

    def _handle_by_uuid(self, uuid: bytes, out: Any) -> int:
        known = [gpu.uuid.encode() for gpu in self.gpus]
        return self._handle_by_index(known.index(uuid), out) if uuid in known else NOT_FOUND

    def _handle_by_index(self, index: int, out: Any) -> int:
        if not self.attached:
            return UNINITIALIZED
        out[0] = ctypes.cast(c_void_p(FIRST_HANDLE + index), DEVICE)
        return self.gpus[index].errors.get("nvmlDeviceGetHandleByUUID", OK)

    def _gpu(self, handle: Any) -> FakeGpu:
        assert self.attached, "asked for a GPU while NVML was closed"
        address = ctypes.cast(handle, c_void_p).value
        assert address is not None
        return self.gpus[address - FIRST_HANDLE]

    def _peer_status(self, gpu: FakeGpu, other: Any, index: int, out: Any) -> int:
        assert self._gpu(other) is not gpu
        if self.peer is None:
            return NOT_SUPPORTED
        return _set(out, self.peer[index])


def install(monkeypatch, library: FakeNvml | None) -> None:
    """Make pynvml load `library`, or find none."""

    def load(name: str) -> FakeNvml:
        assert name == "libnvidia-ml.so.1"
        if library is None:
            raise OSError(f"{name}: cannot open shared object file")
        return library

    monkeypatch.setattr(pynvml, "CDLL", load)
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "_nvmlLib_refcount", 0)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})


def show_to_torch(monkeypatch, *gpus: FakeGpu, peer_access: bool = True) -> None:
    """Make these GPUs torch's cuda:0, cuda:1, ..., as CUDA_VISIBLE_DEVICES orders them."""

    def properties(device: torch.device) -> SimpleNamespace:
        return SimpleNamespace(uuid=gpus[device.index].torch_uuid)

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda first, second: peer_access)


def gpu(number: int, **answers: Any) -> FakeGpu:
    """One of a machine's GPUs, by a UUID, an address and a name of its own."""
    return FakeGpu(f"{UUID}{number}", pci=(0, 0x10 + number, 0), name=f"NVIDIA Test {number}", **answers)


def two_towers() -> Placement:
    """One process with tower 0 on torch's first GPU and tower 1 on its second."""
    return Placement("two_devices", 2, {0: CUDA[0], 1: CUDA[1]})


def words(placement: Placement) -> list[str]:
    """The lines that a run under `placement` says of its GPUs at start-up."""
    with open_telemetry(placement) as telemetry:
        return telemetry.words.split("\n")


def metrics(placement: Placement) -> dict[str, float]:
    """What the first training line of a run under `placement` says of its GPUs."""
    with open_telemetry(placement) as telemetry:
        return telemetry.metrics()


def _set(out: Any, value: int) -> int:
    out[0] = value
    return OK


def _write(out: Any, size: int, text: str) -> int:
    data = text.encode("utf-8", "surrogateescape") + b"\0"
    assert len(data) <= size
    ctypes.memmove(out, data, len(data))
    return OK


def _write_pci(out: Any, pci: tuple[int, int, int]) -> int:
    domain, bus, device = pci
    out[0].domain, out[0].bus, out[0].device = pci
    out[0].busId = f"{domain:08X}:{bus:02X}:{device:02X}.0".encode()
    return OK


def _write_memory(gpu: FakeGpu, out: Any) -> None:
    out[0].total, out[0].free, out[0].used = gpu.memory


def _write_rates(gpu: FakeGpu, out: Any) -> None:
    out[0].gpu, out[0].memory = gpu.percent, 99


def _write_temperature(gpu: FakeGpu, out: Any) -> int:
    if (out[0].version, out[0].sensorType) != (VERSION_1_OF_12_BYTES, 0):
        return INVALID_ARGUMENT
    out[0].temperature = gpu.celsius
    return OK


def _write_state(link: NvLink, out: Any) -> int:
    return _set(out, int(link.active))


def _link(gpu: FakeGpu, index: int, out: Any, write: Callable[[NvLink, Any], int]) -> int:
    return write(gpu.nvlinks[index], out) if index < len(gpu.nvlinks) else INVALID_ARGUMENT


DEVICE_FUNCTIONS = [name for name in vars(FakeNvml()) if name.startswith("nvmlDevice")]
