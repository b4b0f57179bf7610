"""Links that carry tensors between towers, on one device, several devices or several processes."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from alexnet_mp.errors import in_short
from alexnet_mp.parallel.peer_errors import failing_as_peer_lost

Direction = Literal["forward", "backward"]
Tensors = list[list[Tensor]]  # for each local tower, one tensor for (or from) each of its peers, peers in tower order
Pending = Callable[..., Tensors]  # see Link
# Links take every stream from here, for devices of this type: tests/support/happens_before.py takes the place of both.
STREAMS, WITH_STREAMS = torch.cuda, "cuda"
Operation = tuple[Callable[..., dist.Work | None], Sequence[Tensor]]  # dist.isend or dist.irecv, a tensor for each peer


class Traffic:
    """Counts the bytes that each tower sends, by crossing and direction."""

    def __init__(self) -> None:
        self.bytes_sent: Counter[tuple[int, str, Direction]] = Counter()

    def add(self, tower: int, crossing: str, direction: Direction, parcels: Sequence[Tensor]) -> None:
        self.bytes_sent[tower, crossing, direction] += sum(p.numel() * p.element_size() for p in parcels)

    def sent_by(self, tower: int) -> int:
        """Bytes that `tower` has sent since the start."""
        return sum(count for (sender, _, _), count in self.bytes_sent.items() if sender == tower)


class Link(Protocol):
    """Carries parcels between towers.

    `post` launches the exchange of `outgoing` and returns at once; calling what it returns waits, and gives for each
    local tower the parcels that its peers sent to it.

    The local towers of a process may also post one by one, each with nothing for the others. What such a post returns
    is called with the one local tower that waits, gives it what reached it by that post, and nothing to the others.
    """

    towers: int
    local_towers: tuple[int, ...]
    traffic: Traffic

    def post(self, outgoing: Tensors, crossing: str, direction: Direction) -> Pending: ...


def peers_of(tower: int, towers: int) -> list[int]:
    """The other towers, in tower order."""
    return [peer for peer in range(towers) if peer != tower]


class LocalLink:
    """The link of a process that holds all towers, on one device or on several.

    With several GPUs, run forward and backward on each GPU's default stream, else `post` raises RuntimeError: in an
    autograd thread, the current stream of any GPU but the thread's own is the default one.
    """

    def __init__(self, devices: Sequence[torch.device], through_host: bool = False) -> None:
        """`devices[t]` is tower t's. Set `through_host` where direct copies between them cannot be trusted."""
        self.towers = len(devices)
        self.local_towers = tuple(range(self.towers))
        self.devices = list(devices)
        self.through_host = through_host
        self.traffic = Traffic()
        apart = len(set(devices)) > 1 and all(device.type == WITH_STREAMS for device in devices)
        # A stream for each direction, so that what a GPU sends does not wait for what it receives.
        self._sending = {device: STREAMS.Stream(device) for device in devices} if apart else {}
        self._receiving = {device: STREAMS.Stream(device) for device in devices} if apart else {}

    def post(self, outgoing: Tensors, crossing: str, direction: Direction) -> Pending:
        sending = [tower for tower, parcels in enumerate(outgoing) if parcels]
        for tower in sending:
            self._check_stream(self.devices[tower])
            self.traffic.add(tower, crossing, direction, outgoing[tower])
        incoming = []
        for tower, device in enumerate(self.devices):
            sent_here = [outgoing[peer][peers_of(peer, self.towers).index(tower)] for peer in sending if peer != tower]
            incoming.append([self._copy(parcel, device) for parcel in sent_here])

        return lambda *waiting: [
            self._await(parcels, self.devices[tower]) if not waiting or tower in waiting else []
            for tower, parcels in enumerate(incoming)
        ]

    def _check_stream(self, device: torch.device) -> None:
        if device in self._sending and STREAMS.current_stream(device) != STREAMS.default_stream(device):
            raise RuntimeError(
                f"the towers are on several GPUs, and the current stream of {device} is not its default stream; run "
                "forward and backward outside of torch.cuda.stream(...)"
            )

    def _copy(self, parcel: Tensor, device: torch.device) -> Tensor:
        if parcel.device == device:
            return parcel.detach()  # the same memory, but no part of the sender's graph
        if self.through_host:
            return parcel.cpu().to(device)  # waits for the sender, so it hides nothing
        return self._copy_directly(parcel, device)

    def _copy_directly(self, parcel: Tensor, device: torch.device) -> Tensor:
        if not self._sending:
            return parcel.to(device)
        # Beside both GPUs' current streams, so that the own half's kernels, queued next, do not wait behind the copy.
        # It waits for what the sender has queued so far, and for nothing of the receiver's.
        source, target = self._sending[parcel.device], self._receiving[device]
        source.wait_stream(STREAMS.current_stream(parcel.device))
        with STREAMS.stream(target), STREAMS.stream(source):
            copy = parcel.to(device, non_blocking=True)
        parcel.record_stream(source)
        return copy

    def _await(self, parcels: list[Tensor], device: torch.device) -> list[Tensor]:
        if device in self._receiving:
            waiting = STREAMS.current_stream(device)
            waiting.wait_stream(self._receiving[device])
            for parcel in parcels:
                parcel.record_stream(waiting)
        return parcels


class ProcessLink:
    """The link of a process that holds one tower: paired sends and receives on the towers' process group."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        """`group` holds the processes of one replica, in tower order."""
        self.towers = dist.get_world_size(group)
        self.tower = dist.get_rank(group)
        self.local_towers: tuple[int, ...] = (self.tower,)
        self.traffic = Traffic()
        self._group = group

    def post(self, outgoing: Tensors, crossing: str, direction: Direction) -> Pending:
        parcels = [_as_laid_out(parcel) for parcel in outgoing[0]]
        self.traffic.add(self.tower, crossing, direction, parcels)
        arrive = self._exchange(parcels, f"crossing {crossing}, {direction}")
        return lambda *_waiting: [arrive()]

    def _exchange(self, parcels: list[Tensor], where: str) -> Callable[[], list[Tensor]]:
        """Launch sends of `parcels`, one to each peer; what is returned waits for what the peers sent."""
        # Towers have equal shapes, so what comes from a peer is shaped like what goes to it.
        incoming = [torch.empty_like(parcel) for parcel in parcels]
        return self._launch(where, [(dist.isend, parcels), (dist.irecv, incoming)])

    def _launch(self, where: str, operations: Sequence[Operation], tag: int = 0) -> Callable[[], list[Tensor]]:
        """Launch operations as one batch; what is returned waits for all, and gives the tensors of the last."""
        peers = peers_of(self.tower, self.towers)
        batch = [
            dist.P2POp(operation, _in_memory_order(tensor), group=self._group, tag=tag, group_peer=peer)
            for operation, tensors in operations
            for peer, tensor in zip(peers, tensors, strict=True)
        ]
        with self._naming(where, peers):
            requests = dist.batch_isend_irecv(batch)
        # gloo has a request for each operation, NCCL one for all of them.
        of_peers = [[peer] for _ in operations for peer in peers] if len(requests) == len(batch) else [peers]

        def wait() -> list[Tensor]:
            for request, awaited in zip(requests, of_peers, strict=True):
                with self._naming(where, awaited):
                    request.wait()
            batch.clear()  # held until here: a buffer must live as long as its send
            return list(operations[-1][1])

        return wait

    def _naming(self, where: str, peers: Sequence[int]) -> AbstractContextManager[None]:
        """Raise PeerLost, which names the crossing and the peers, if an exchange with them fails."""
        began = time.monotonic()

        def in_words(error: RuntimeError) -> str:
            who = " or ".join(f"tower {peer} (rank {dist.get_global_rank(self._group, peer)})" for peer in peers)
            return f"{where}: {who} hung or is gone, after {time.monotonic() - began:.1f} s ({in_short(error)})"

        return failing_as_peer_lost(in_words, named=True)


def _as_laid_out(parcel: Tensor) -> Tensor:
    """The parcel without gaps: maps in channels_last, as the layers have them, so that sending them copies nothing."""
    return parcel.contiguous(memory_format=torch.channels_last if parcel.ndim == 4 else torch.contiguous_format)


def _in_memory_order(parcel: Tensor) -> Tensor:
    """A contiguous view, which is what a process group takes."""
    return parcel.permute(0, 2, 3, 1) if parcel.ndim == 4 else parcel


class HalfPrecisionLink:
    """Carries parcels by another link, rounded to `dtype` on the way, and hands them over in their own dtype.

    The original code's authors trained a network that way, #170-quant, at no loss: top-1 error 40.524 %, not 40.528 %.

    Gradients here are of the mean loss over the batch, in the original code of the sum; in float16 many of the mean's
    would be below 6e-8, the smallest number that there is. So gradients travel as those of the sum: times the least
    power of two that is not below the number of images, which rounds nothing by itself.
    """

    def __init__(self, link: Link, dtype: torch.dtype) -> None:
        """`dtype` is torch.float16 or torch.bfloat16."""
        self.towers = link.towers
        self.local_towers = link.local_towers
        self.traffic = link.traffic
        self._link = link
        self._dtype = dtype

    def post(self, outgoing: Tensors, crossing: str, direction: Direction) -> Pending:
        first = next(parcel for parcels in outgoing for parcel in parcels)
        images, own_dtype = len(first), first.dtype
        factor = 1 << (images - 1).bit_length() if direction == "backward" else 1

        def rounded(parcel: Tensor) -> Tensor:
            return (parcel if factor == 1 else parcel * factor).to(self._dtype)

        def restored(parcel: Tensor) -> Tensor:
            received = parcel.to(own_dtype)
            return received if factor == 1 else received / factor

        arrival = self._link.post(
            [[rounded(parcel) for parcel in parcels] for parcels in outgoing], crossing, direction
        )
        return lambda *waiting: [[restored(parcel) for parcel in parcels] for parcels in arrival(*waiting)]
