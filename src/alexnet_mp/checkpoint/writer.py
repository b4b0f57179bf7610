"""Writes checkpoints while training goes on: takes a copy, and a thread waits for the disk."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet_mp.checkpoint.files import save_checkpoint
from alexnet_mp.network.table import Network


@dataclass(frozen=True)
class WriteResult:
    """What became of a checkpoint: `problem` is empty if it is on the disk, whole. `seconds` the disk took."""

    name: str
    seconds: float
    problem: str


class CheckpointWriter:
    """Writes this process's towers into `checkpoints`, one checkpoint at a time.

    With several processes a replica, all start the same checkpoints in the same order.
    """

    def __init__(
        self, checkpoints: Path, network: Network, timeout_seconds: float, saved: Callable[[str], None] | None = None
    ) -> None:
        """`saved` is called in the thread with the name of each checkpoint that is whole."""
        self._checkpoints = checkpoints
        self._network = network
        self._timeout_seconds = timeout_seconds
        self._saved = saved
        self._copies: dict[str, dict[str, Tensor]] = {"weights": {}, "momentum": {}}
        self._abandoned = threading.Event()
        self._thread: threading.Thread | None = None
        self._outcome: WriteResult | None = None

    @property
    def is_busy(self) -> bool:
        """True while a checkpoint is being written, or its outcome has not been asked for."""
        return self._thread is not None

    def start(
        self, name: str, weights: Mapping[str, Tensor], momentum: Mapping[str, Tensor], description: Mapping[str, Any]
    ) -> None:
        """Copy the tensors and return; the thread writes the copies. Not while another is being written."""
        assert not self.is_busy, "one checkpoint at a time"
        for kind, tensors in (("weights", weights), ("momentum", momentum)):
            self._copy(self._copies[kind], tensors)
        self._abandoned.clear()
        devices = {tensor.device for tensor in weights.values() if tensor.is_cuda}
        copied = [torch.cuda.current_stream(device).record_event() for device in devices]
        arguments = (name, dict(description), copied)
        self._thread = threading.Thread(target=self._write, args=arguments, name="checkpoint")
        self._thread.start()

    def outcome(self, wait: bool = False) -> WriteResult | None:
        """The result of the last checkpoint, told once; None while it is being written, or if none was."""
        if self._thread is None or (self._thread.is_alive() and not wait):
            return None
        self._thread.join()
        self._thread = None
        return self._outcome

    def abandon(self) -> None:
        """Stop waiting for the files of other processes: one of them could not write its own."""
        self._abandoned.set()

    def close(self, seconds: float) -> None:
        """Let what is being written end; wait so long for the files of other processes."""
        if self._thread is not None:
            self._thread.join(seconds)
            self.abandon()
            self._thread.join()

    def _copy(self, copies: dict[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
        """Into the same memory for every checkpoint: new memory costs more than the copy.

        From GPUs it is pinned, so that training does not wait: its next kernels are queued behind the copy.
        """
        for name, tensor in tensors.items():
            if name not in copies:
                copies[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            copies[name].copy_(tensor.detach(), non_blocking=True)

    def _write(self, name: str, description: dict[str, Any], copied: Sequence[torch.cuda.Event]) -> None:
        started, problem = time.perf_counter(), ""
        try:
            for event in copied:
                event.synchronize()
            save_checkpoint(
                self._checkpoints / name,
                self._copies["weights"],
                self._network,
                description,
                self._timeout_seconds,
                self._copies["momentum"],
                self._abandoned,
            )
            if self._saved:
                self._saved(name)
        except Exception as error:  # whatever it is, training goes on, and the run ends with it if nothing helps
            problem = str(error) or type(error).__name__
        self._outcome = WriteResult(name, time.perf_counter() - started, problem)
