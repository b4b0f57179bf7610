"""Strict NCCL: a process group over gloo that behaves as badly as NCCL may, and notes what NCCL would punish.

Inside of `strict_nccl()`, the meshes' groups of towers and of replicas are such groups, and CPU tensors stand for
those on GPUs. What a group does as NCCL does, or may do:

- It has one queue, as a communicator on its stream has: an operation begins when all before it are done. It begins
  late: when its result is wanted, or after a moment.
- A send is done only with its receive. So two processes that both send before they receive wait for ever, unless the
  operations are one batch of `batch_isend_irecv`, which gives one request for all of them.
- Operations of a pair meet in order; tags mean nothing. Sizes or dtypes that do not fit are faults, and so are
  collectives that are not the same in all processes (NCCL hangs, or mixes them up).
- A tensor with gaps is refused.
- Nothing is in a received tensor before `wait()`: it is full of NaN. What is sent must stay as it is until then, and
  what is received must not be written. A request that nobody waits for is a fault.
- `wait()` never raises and has no time-out. If a peer is gone it returns all the same, because on a GPU it only queues
  a wait: from then on the group does nothing more, its tensors keep their NaN, and a bounded wait
  (`wait_with_timeout`) raises.
- The only error is the watchdog's, which counts from when an operation was enqueued, and ends the process.
- Until a bounded wait has returned, the host must not read a number (`item`, `tolist`, `numpy`, `cpu`, truth, int,
  float): on a GPU the read would wait, without a time-out, for a peer that may be gone.

It cannot see: streams and events (the stand-in of happens-before does); on which device a tensor is, so reads of
`parallel/mesh.py`, whose agreements are on the CPU, are allowed, and of others only those of the library's own code on
the main thread count; memory that is freed too early; kernels of NCCL that take a GPU's multiprocessors from others;
lazy initialization; several communicators that wait for each other on one GPU; CUDA's own failures. Its `wait()` holds
the host for as long as the peer takes, at most `patience` seconds, where NCCL's returns at once.
"""

import contextlib
import os
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor

import alexnet_mp
from alexnet_mp.commands import train
from alexnet_mp.errors import PeerLost
from alexnet_mp.parallel import link_test, mesh, wait
from alexnet_mp.training import trainer

SOURCES = str(Path(alexnet_mp.__file__).parent)
_READS = ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__")
_BEGINS_AFTER = 0.02  # seconds, if nobody waits
_PACKETS = 3  # of a send: what it is, whether it fits, the values
_BATCH: Any = dist.batch_isend_irecv
_NUMPY: Any = Tensor.numpy


class StrictNcclError(AssertionError):
    """What NCCL would have punished."""


@dataclass
class Strict:
    """The groups of a process, and what it did that NCCL punishes."""

    patience: float  # seconds that `wait()` gives a peer, before it returns as on a GPU that waits for ever
    watchdog_seconds: float | None  # from enqueueing; None: the group's time-out, which is longer than ours
    reads_of: tuple[str, ...]
    aborts: bool
    faults: list[str] = field(default_factory=list)
    groups: "list[StrictGroup]" = field(default_factory=list)
    unsettled: bool = False  # something was enqueued since the last bounded wait

    def fault(self, what: str) -> None:
        if what not in self.faults:
            self.faults.append(what)

    def settle(self, device: torch.device, seconds: float, *_: object, **__: object) -> None:
        """In place of `wait_with_timeout`: this GPU has done what was asked of it, or PeerLost."""
        deadline = time.monotonic() + seconds
        for group in self.groups:
            for each in list(group.entries):
                each.wanted.set()
                if not each.over.wait(max(0.0, deadline - time.monotonic())) or not each.done:
                    raise PeerLost(
                        f"{device} did not finish its work within {seconds:g} s: another process hung or is gone"
                    )
        self.unsettled = False

    def abort(self, what: str) -> None:
        self.fault(what)
        if self.aborts:
            print(f"error: {what}", file=sys.stderr, flush=True)
            os._exit(134)


@dataclass(eq=False)
class Entry:
    """What is in a group's queue: one collective, one send or receive, or a batch of those."""

    name: str
    steps: list[Callable[[], "Steps"]]
    results: list[tuple[Tensor, Tensor]]  # what is to be filled, and from what
    sent: list[tuple[Tensor, int]]
    enqueued: float = field(default_factory=time.monotonic)
    wanted: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)  # done, or given up
    done: bool = False
    awaited: bool = False


Steps = Iterator[list[Any]]  # requests of gloo, which must be done before it goes on


class Request(dist.Work):
    """What an operation returns."""

    def __init__(self, group: "StrictGroup", entry: Entry, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self._group, self._entry, self._tensors = group, entry, list(tensors)

    def wait(self, timeout: timedelta | None = None) -> bool:
        self._entry.awaited = True
        self._entry.wanted.set()
        self._entry.over.wait()
        self._group.deliver(self._entry)
        return True

    def get_future(self) -> "torch.futures.Future[list[Tensor]]":
        """For DistributedDataParallel, whose own code waits for it on the device's stream."""
        self._entry.awaited = True
        self._entry.wanted.set()
        future: torch.futures.Future[list[Tensor]] = torch.futures.Future()

        def complete() -> None:
            self._entry.over.wait()
            self._group.deliver(self._entry)
            future.set_result(self._tensors)

        threading.Thread(target=complete, daemon=True).start()
        return future


class StrictGroup(dist.ProcessGroup):
    """One communicator of one process."""

    def __init__(self, strict: Strict, store: dist.Store, rank: int, size: int, timeout: timedelta) -> None:
        super().__init__(rank, size)
        self.entries: list[Entry] = []
        self._strict, self._rank, self._size = strict, rank, size
        self._watchdog_seconds = strict.watchdog_seconds or timeout.total_seconds()
        self._gloo = dist.ProcessGroupGloo(store, rank, size, timeout=timedelta(hours=1))
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._sends: Counter[int] = Counter()
        self._receives: Counter[int] = Counter()
        self._hangs = self._closed = False
        self._batch: list[Entry] | None = None
        strict.groups.append(self)
        for work in (self._work_off, self._watch):
            threading.Thread(target=work, daemon=True).start()

    # What torch.distributed calls.

    def getBackendName(self) -> str:
        return "strict_nccl"

    def _set_group_name(self, name: str) -> None:
        super()._set_group_name(name)
        self._name = name

    @property
    def group_name(self) -> str:
        return self._name

    def send(self, tensors: list[Tensor], peer: int, tag: int) -> Request:
        (tensor,) = self._without_gaps(tensors)
        number, self._sends[peer] = self._sends[peer], self._sends[peer] + 1

        def steps() -> Steps:
            header = torch.tensor([tensor.numel(), _number_of(tensor.dtype)])
            fits = torch.zeros(1, dtype=torch.int64)
            first = _PACKETS * number
            yield [self._gloo.send([header], peer, first)]
            yield [self._gloo.recv([fits], peer, first + 1)]
            if not fits.item():
                raise StrictNcclError("the peer expects another tensor")
            yield [self._gloo.send([tensor], peer, first + 2)]

        return self._enqueue(f"a send to {peer}", [steps], [], [tensor])

    def recv(self, tensors: list[Tensor], peer: int, tag: int) -> Request:
        (tensor,) = self._without_gaps(tensors)
        number, self._receives[peer] = self._receives[peer], self._receives[peer] + 1
        received = torch.empty_like(tensor)

        def steps() -> Steps:
            header = torch.zeros(2, dtype=torch.int64)
            first = _PACKETS * number
            yield [self._gloo.recv([header], peer, first)]
            expected = [tensor.numel(), _number_of(tensor.dtype)]
            what = f"rank {peer} sends {header.tolist()} and rank {self._rank} expects {expected} (values, dtype)"
            fits = header.tolist() == expected
            if not fits:
                self._strict.fault(f"{what}: NCCL hangs, or mixes them up")
            yield [self._gloo.send([torch.tensor([int(fits)])], peer, first + 1)]
            if not fits:
                raise StrictNcclError(what)
            yield [self._gloo.recv([received], peer, first + 2)]

        return self._enqueue(f"a receive from {peer}", [steps], [(tensor, received)], [])

    def allreduce(self, tensors: list[Tensor], opts: Any = None) -> Request:
        options = dist.AllreduceOptions() if opts is None else opts
        (tensor,) = self._without_gaps(tensors)
        reduced = tensor.clone()
        run = lambda: self._gloo.allreduce([reduced], options)  # noqa: E731
        return self._collective("allreduce", run, [(tensor, reduced)], [tensor], poisoned=False)

    def broadcast(self, tensors: list[Tensor], opts: Any = None) -> Request:
        options = dist.BroadcastOptions() if opts is None else opts
        (tensor,) = self._without_gaps(tensors)
        held = tensor.clone()
        run = lambda: self._gloo.broadcast([held], options)  # noqa: E731
        results = [] if options.rootRank == self._rank else [(tensor, held)]
        name = f"broadcast from {options.rootRank}"
        return self._collective(name, run, results, [] if results else [tensor])

    def allgather(self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: Any = None) -> Request:
        ((*out,), (tensor,)) = outputs[0], self._without_gaps(inputs)
        held, gathered = tensor.clone(), [torch.empty_like(each) for each in self._without_gaps(out)]
        run = lambda: self._gloo.allgather([gathered], [held])  # noqa: E731
        return self._collective("allgather", run, list(zip(out, gathered, strict=True)), [tensor])

    def barrier(self, opts: Any = None) -> Request:
        return self.allreduce([torch.zeros(1)])

    # The queue.

    def batch(self, operations: "list[dist.P2POp]") -> list[Request]:
        """`batch_isend_irecv`: one entry of the queue."""
        self._batch = []
        try:
            for each in operations:
                (self.send if each.op is dist.isend else self.recv)([each.tensor], each.group_peer, each.tag)
            parts = self._batch
        finally:
            self._batch = None
        together = Entry(
            " and ".join(each.name for each in parts),
            [step for each in parts for step in each.steps],
            [result for each in parts for result in each.results],
            [sent for each in parts for sent in each.sent],
        )
        return [self._launch(together, [each.tensor for each in operations])]

    def deliver(self, entry: Entry) -> None:
        """What `wait()` makes visible."""
        if not entry.done:
            return
        for tensor, received in entry.results:
            tensor.detach().copy_(received)
        entry.results = []

    def close(self) -> None:
        for each in self.entries:
            if not each.awaited:
                self._strict.fault(f"nobody waited for {each.name}")
        self._closed = True
        self._queue.put(None)

    def _without_gaps(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        for tensor in tensors:
            if not tensor.is_contiguous():
                raise ValueError("Tensors must be contiguous")  # as ProcessGroupNCCL says
        return list(tensors)

    def _collective(
        self,
        name: str,
        run: Callable[[], Any],
        results: list[tuple[Tensor, Tensor]],
        sent: list[Tensor],
        poisoned: bool = True,
    ) -> Request:
        """`run` launches it on copies; `results` are where these go."""
        about = (name, *((each.numel(), str(each.dtype)) for each, _ in results[:1] or [(each, each) for each in sent]))
        digest = torch.tensor([sum(ord(letter) * (17 + place) for place, letter in enumerate(repr(about)))])

        def steps() -> Steps:
            everyone = [torch.zeros_like(digest) for _ in range(self._size)]
            yield [self._gloo.allgather([everyone], [digest])]
            if len({each.item() for each in everyone}) > 1:
                what = f"rank {self._rank} is at {about} while another rank is at another collective"
                self._strict.fault(f"{what}: NCCL hangs, or mixes them up")
                raise StrictNcclError(what)
            yield [run()]

        tensors = [each for each, _ in results] or sent
        return self._enqueue(name, [steps], results, sent, tensors if poisoned else [])

    def _enqueue(
        self,
        name: str,
        steps: list[Callable[[], Steps]],
        results: list[tuple[Tensor, Tensor]],
        sent: list[Tensor],
        poisoned: Sequence[Tensor] | None = None,
    ) -> Request:
        for tensor, _ in results:
            if tensor.is_floating_point() and (poisoned is None or any(tensor is each for each in poisoned)):
                tensor.detach().fill_(float("nan"))
        kept = [each for each, _ in results if not any(each is one for one in sent)]
        entry = Entry(name, steps, results, [(each, _checksum(each)) for each in [*sent, *kept]])
        if self._batch is not None:
            self._batch.append(entry)
            return Request(self, entry, sent)
        return self._launch(entry, [tensor for tensor, _ in results] or sent)

    def _launch(self, entry: Entry, tensors: Sequence[Tensor]) -> Request:
        self._strict.unsettled = True
        self.entries.append(entry)
        self._queue.put(entry)
        return Request(self, entry, tensors)

    def _work_off(self) -> None:
        while (entry := self._queue.get()) is not None:
            entry.wanted.wait(_BEGINS_AFTER)
            if not self._hangs:
                self._carry_out(entry)
            entry.over.set()

    def _carry_out(self, entry: Entry) -> None:
        """All parts of an entry side by side, each phase of them when the one before is done."""
        deadline = time.monotonic() + self._strict.patience
        running = [steps() for steps in entry.steps]
        try:
            while running:
                phases = [(each, next(each, None)) for each in running]
                requests = [request for _, phase in phases for request in phase or []]
                for request in requests:
                    request.wait(timedelta(seconds=max(0.001, deadline - time.monotonic())))
                running = [each for each, phase in phases if phase is not None]
        except (RuntimeError, StrictNcclError):
            self._hangs = True  # as the GPU does, with all that is queued behind
            return
        if any(_checksum(tensor) != before for tensor, before in entry.sent):
            self._strict.fault(f"a tensor changed while it was in flight: {entry.name}")
        entry.done = True

    def _watch(self) -> None:
        while not self._closed:
            now = time.monotonic()
            for each in list(self.entries):
                if not each.done and now - each.enqueued > self._watchdog_seconds:
                    late = f"not done {self._watchdog_seconds:g} s after it was enqueued"
                    self._strict.abort(f"watchdog: {each.name} of rank {self._rank} is {late}")
            time.sleep(0.02)


def _number_of(dtype: torch.dtype) -> int:
    return sum(ord(letter) * (17 + place) for place, letter in enumerate(str(dtype)))


def _checksum(tensor: Tensor) -> int:
    return hash(_NUMPY(tensor.detach().reshape(-1).view(torch.uint8)).tobytes())


@contextlib.contextmanager
def strict_nccl(
    patience: float = 30.0,
    watchdog_seconds: float | None = None,
    reads_of: tuple[str, ...] = (SOURCES,),
    aborts: bool = False,
    raises: bool = True,
) -> Iterator[Strict]:
    """Meshes made inside have strict groups. At the end, StrictNcclError if there were faults, unless not `raises`."""
    strict = Strict(patience, watchdog_seconds, reads_of, aborts)

    def create(store: dist.Store, rank: int, size: int, timeout: timedelta) -> StrictGroup:
        return StrictGroup(strict, store, rank, size, timeout)

    def new_group(ranks: list[int], device: torch.device, seconds: float, urgent: bool = False) -> dist.ProcessGroup:
        return dist.new_group(ranks, timedelta(seconds=seconds + mesh.NCCL_WAITS_LONGER), "strict_nccl")

    def batch(operations: "list[dist.P2POp]") -> list[Any]:
        group = operations[0].group
        return group.batch(operations) if isinstance(group, StrictGroup) else _BATCH(operations)

    with contextlib.ExitStack() as stack:
        _register(create)
        stack.enter_context(patch.object(mesh, "_new_group", new_group))
        stack.enter_context(patch.object(dist, "batch_isend_irecv", batch))
        for module in (mesh, link_test, wait):
            stack.enter_context(patch.object(module, "wait_with_timeout", strict.settle))
        stack.enter_context(patch.object(trainer.Trainer, "__init__", _as_on_gpus(trainer.Trainer.__init__)))
        for name in _READS:
            stack.enter_context(patch.object(Tensor, name, _noted(strict, getattr(Tensor, name), name)))
        try:
            yield strict
        finally:
            for group in strict.groups:
                group.close()
    # Not beside an error of the script's own: of that, unawaited requests and reads may be a consequence.
    if strict.faults and raises:
        raise StrictNcclError("; ".join(strict.faults))


def _as_on_gpus(init: Callable[..., None]) -> Callable[..., None]:
    """A trainer that reads its loss as on GPUs: after the agreement, and a bounded wait."""

    def made(self: trainer.Trainer, run: trainer.Run) -> None:
        init(self, run)
        self._reads_every_loss = False

    return made


def _register(create: Callable[..., StrictGroup]) -> None:
    if "STRICT_NCCL" not in dist.Backend._plugins:
        dist.Backend.register_backend("strict_nccl", create, devices=["cpu"])
    plugin = dist.Backend._plugins["STRICT_NCCL"]
    dist.Backend._plugins["STRICT_NCCL"] = plugin._replace(creator_fn=create)


def _noted(strict: Strict, read: Callable[..., Any], name: str) -> Callable[..., Any]:
    def reads(tensor: Tensor, *arguments: Any, **options: Any) -> Any:
        if strict.unsettled and threading.current_thread() is threading.main_thread():
            frame = sys._getframe(1)
            while frame and not frame.f_code.co_filename.startswith(strict.reads_of):
                frame = frame.f_back
            if frame and Path(frame.f_code.co_filename).name != "mesh.py":
                place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                strict.fault(f"the host reads a number ({name}) at {place} before a bounded wait for the device")
        return read(tensor, *arguments, **options)

    return reads


def main() -> None:
    """`python strict_nccl.py PATIENCE launch/train.py ARGUMENTS`: training on strict groups, whose watchdog aborts.

    Faults are an error line, and code 1. Nothing is waited for at the end, as groups of GPUs are not destroyed then.
    """
    _, patience, *sys.argv = sys.argv
    code: Any = 0
    try:
        with strict_nccl(patience=float(patience), aborts=True):
            train.main()
    except SystemExit as ended:
        code = ended.code or 0
    except StrictNcclError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
