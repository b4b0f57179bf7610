"""A link between processes that carries parcels through pinned host memory and over gloo, never from GPU to GPU."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from alexnet_mp.parallel import links
from alexnet_mp.parallel.links import ProcessLink


class HostLink(ProcessLink):
    """The link of a process that holds one tower, if GPUs cannot copy to each other, or if two processes share one.

    `post` copies the parcels to pinned memory beside the tower's own work. What it returns waits for these copies, then
    for the exchange, and copies what came to the device; the own half is queued by then. On a CPU, copies are done at
    once and parcels leave in `post`. The group's backend is gloo.
    """

    _exchanges = 0
    _stream: torch.cuda.Stream | None = None  # beside the device's current one

    def _exchange(self, parcels: list[Tensor], where: str) -> Callable[[], list[Tensor]]:
        self._exchanges += 1
        tag = self._exchanges  # alike on all towers: what leaves late is not taken for what was posted after it
        device = parcels[0].device
        sent, copied = self._to_host(parcels, device)
        received = [_host_buffer(parcel) for parcel in parcels]
        waits = [self._launch(where, [(dist.irecv, received)], tag)]
        if copied is None:
            waits.append(self._launch(where, [(dist.isend, sent)], tag))

        def arrive() -> list[Tensor]:
            if copied is not None:
                copied.synchronize()
                waits.append(self._launch(where, [(dist.isend, sent)], tag))
            for wait in waits:
                wait()
            return self._to_device(received, device)

        return arrive

    def _to_host(self, parcels: list[Tensor], device: torch.device) -> tuple[list[Tensor], torch.cuda.Event | None]:
        """Copies of the parcels, and what to wait for before they are read."""
        if device.type == "cpu":
            return [_host_buffer(parcel).copy_(parcel) for parcel in parcels], None
        self._stream = self._stream or links.STREAMS.Stream(device)
        self._stream.wait_stream(links.STREAMS.current_stream(device))
        with links.STREAMS.stream(self._stream):
            sent = [_host_buffer(parcel).copy_(parcel, non_blocking=True) for parcel in parcels]
        for parcel in parcels:
            parcel.record_stream(self._stream)
        return sent, self._stream.record_event()

    def _to_device(self, received: list[Tensor], device: torch.device) -> list[Tensor]:
        """What was received, for the current stream of the device."""
        if self._stream is None:
            return received
        current = links.STREAMS.current_stream(device)
        with links.STREAMS.stream(self._stream):
            incoming = [buffer.to(device, non_blocking=True) for buffer in received]
        current.wait_stream(self._stream)
        for parcel in incoming:
            parcel.record_stream(current)
        return incoming


def _host_buffer(parcel: Tensor) -> Tensor:
    """Memory of the host laid out as `parcel`; pinned for one on a GPU, and PyTorch reuses it only after the copies."""
    return torch.empty_like(parcel, device="cpu", pin_memory=parcel.is_cuda)
