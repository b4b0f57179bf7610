"""Audits one training step for what a GPU would make slow: kernels launched, and calls that make the host wait.

It sees every operation of PyTorch on the thread that runs it, forward, backward and update, also under FakeTensorMode,
where nothing is computed and a large network costs nothing. It cannot see what a kernel does inside, waits that CUDA
makes by itself (an allocation, a library's first call), or a copy to a device that a CPU build cannot tell from none;
so every copy to a device is taken for one that waits, but those of `common.device.upload` and of the link. Autograd's
threads for other devices are not seen: a CPU build has none.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import alexnet_mp
from alexnet_mp.common import device as common_device
from alexnet_mp.data import preprocessing
from alexnet_mp.model.layers import lrn, spatial_norm
from alexnet_mp.parallel import crossing
from alexnet_mp.parallel.links import LocalLink
from alexnet_mp.parallel.mesh import Mesh

SOURCES = str(Path(alexnet_mp.__file__).parent)
# They make or look at a tensor without a kernel.
WITHOUT_KERNEL = {
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias", "_unsafe_view"),
    *("device", "_record_function_enter_new", "_record_function_exit"),
}
WAITS = {"item", "cpu", "tolist", "numpy", "new_tensor", "__bool__", "__float__", "__int__", "__index__", "cuda"}


@dataclass
class Audit:
    """`operations`: how often each kernel-like one ran. `banned`: calls that wait, with their places. `uploads`."""

    operations: Counter[str] = field(default_factory=Counter)
    banned: list[str] = field(default_factory=list)
    uploads: int = 0
    paused: bool = False

    @property
    def kernels(self) -> int:
        return self.operations.total()

    def ban(self, call: str) -> None:
        if not self.paused:
            self.banned.append(f"{call} {_place()}")


@contextmanager
def audited_step(monkeypatch) -> Iterator[Audit]:
    """Audit what runs inside. Choices that follow from the device are made as on a GPU."""
    audit = Audit()

    def counted_upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        audit.uploads += 1
        with _paused(audit):
            return common_device.upload(tensor, device)

    def agreement(mesh: Mesh, values):
        with _paused(audit):
            return sum_over_processes(mesh, values)

    def copy_between_towers(link: LocalLink, parcel: torch.Tensor, device: torch.device) -> torch.Tensor:
        with _paused(audit):
            return copy(link, parcel, device)

    sum_over_processes, copy = Mesh.sum_over_processes, LocalLink._copy
    with monkeypatch.context() as patch, ExitStack() as modes:
        for module in (lrn, spatial_norm):
            patch.setattr(module, "rows_in_a_block", lambda tensor, _bytes: len(tensor))
        for module in (preprocessing, crossing):
            patch.setattr(module, "upload", counted_upload)
        patch.setattr(Mesh, "sum_over_processes", agreement)
        patch.setattr(LocalLink, "_copy", copy_between_towers)
        modes.enter_context(_Functions(audit))
        modes.enter_context(_Operations(audit))
        yield audit


class _Operations(TorchDispatchMode):
    def __init__(self, audit: Audit) -> None:
        super().__init__()
        self._audit = audit

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name == "_local_scalar_dense":
            self._audit.ban("a number is read")
        elif not func.is_view and name not in WITHOUT_KERNEL and not self._audit.paused:
            self._audit.operations[name] += 1
        return func(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    def __init__(self, audit: Audit) -> None:
        super().__init__()
        self._audit = audit

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        to_a_device = name == "to" and any(isinstance(each, torch.device) for each in [*args, kwargs.get("device")])
        made_there = name in ("tensor", "as_tensor") and kwargs.get("device") is not None
        if name in WAITS or to_a_device or made_there:
            self._audit.ban(name)
        return func(*args, **kwargs)


@contextmanager
def _paused(audit: Audit) -> Iterator[None]:
    before, audit.paused = audit.paused, True
    try:
        yield
    finally:
        audit.paused = before


def _place() -> str:
    """The innermost line of the library that is running."""
    frame = sys._getframe()
    while frame and not frame.f_code.co_filename.startswith(SOURCES):
        frame = frame.f_back
    return f"at {Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else "outside of the library"
