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
        self._copies: dict[str, Tensor] = {}
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
        copies = {"weights": self._copied("weights", weights), "momentum": self._copied("momentum", momentum)}
        self._abandoned.clear()
        devices = {tensor.device for tensor in weights.values() if tensor.is_cuda}
        copied = [torch.cuda.current_stream(device).record_event() for device in devices]
        arguments = (name, copies, dict(description), copied)
        self._thread = threading.Thread(target=self._write, args=arguments, name="checkpoint")
        self._thread.start()

    def outcome(self, wait: bool = False) -> WriteResult | None:
        """What became of the checkpoint, told once; None while it is being written, or where none was."""
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

    def _copied(self, kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # The same memory for every checkpoint: new memory costs more than the copy. From GPUs it is pinned, so that the
        # training does not wait for the copy: its next kernels are queued behind it.
        return {name: self._copy(f"{kind} {name}", tensor) for name, tensor in tensors.items()}

    def _copy(self, key: str, tensor: Tensor) -> Tensor:
        if key not in self._copies:
            self._copies[key] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        return self._copies[key].copy_(tensor.detach(), non_blocking=True)

    def _write(
        self,
        name: str,
        copies: dict[str, dict[str, Tensor]],
        description: dict[str, Any],
        copied: Sequence[torch.cuda.Event],
    ) -> None:
        started, problem = time.perf_counter(), ""
        try:
            for event in copied:
                event.synchronize()
            save_checkpoint(
                self._checkpoints / name,
                copies["weights"],
                self._network,
                description,
                self._timeout_seconds,
                copies["momentum"],
                self._abandoned,
            )
            if self._saved:
                self._saved(name)
        except Exception as error:  # whatever it is, training goes on, and the run ends with it if nothing helps
            problem = str(error) or type(error).__name__
        self._outcome = WriteResult(name, time.perf_counter() - started, problem)
