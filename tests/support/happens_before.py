"""Is every use of a tensor on one stream ordered after its last use on another? A step of two devices, without a GPU.

Fake tensors remember that they are on cpu:0 or cpu:1, which stand for two GPUs; a stand-in gives links their streams;
and PyTorch's own CUDA sanitizer, whose event handler is pure Python, judges what the dispatcher shows it: forward,
backward, copies between the devices, the end of every allocation.

It sees: an access that no event orders after an earlier one on another stream; memory that returns to its allocation's
stream while another stream, for which `record_stream` was not called, may still use it; both orders in which autograd's
two threads can run, each as far as it comes before the other begins.

It cannot see: values; what a kernel does inside; memory that a library takes by itself; orders of the two threads
between the two extremes; accesses to parts of one allocation that do not overlap, which it takes for the same memory;
copies from and to the host. A copy between two devices is modeled as PyTorch makes it (`copy_device_to_device`,
Copy.cu): on the sender's current stream, which first waits for the receiver's, and for which the receiver's then waits.
"""

import weakref
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import Node
from torch.cuda._sanitizer import EventHandler
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.table import Network
from alexnet_mp.parallel import links
from alexnet_mp.parallel.links import LocalLink
from alexnet_mp.parallel.placement import Placement

DEVICES = {tower: torch.device("cpu", tower) for tower in range(2)}
PRIORITY = 1 << 32  # above every number that autograd gives a node in a test


class StandInStream:
    """A stream of the stand-in: a number for the sanitizer, and `is_default` for tests that plant faults."""

    def __init__(self, watch: "Watch", device: torch.device, is_default: bool = False) -> None:
        self.watch, self.device, self.is_default = watch, device, is_default
        self.number = next(watch.numbers)
        watch.names[self.number] = f"{'the default' if is_default else 'another'} stream of {device}"
        watch.handler._handle_stream_creation(self.number)

    def wait_stream(self, other: "StandInStream") -> None:
        """As `torch.cuda.Stream`'s: by an event."""
        event, handler = next(self.watch.numbers), self.watch.handler
        handler._handle_event_creation(event)
        handler._handle_event_record(event, other.number)
        handler._handle_event_wait(event, self.number)
        handler._handle_event_deletion(event)


class Watch(TorchDispatchMode):
    """Stands for `torch.cuda` where links take streams from it, and watches every operation. `found`: in words."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.handler = EventHandler()
        self.numbers = count(1)
        self.names: dict[int, str] = {}
        self._defaults = {device: StandInStream(self, device, is_default=True) for device in DEVICES.values()}
        self.thread: torch.device | None = None  # whose thread of autograd runs; None: the main one
        self.turns: list[torch.device] = []  # the threads in the order in which they ran
        self.chosen = dict(self._defaults)  # the main thread's current streams
        self._allocated: dict[int, StandInStream] = {}  # by storage: the stream to which its memory returns
        self._recorded: defaultdict[int, set[int]] = defaultdict(set)
        self._over = False

    # What links ask of torch.cuda.

    def Stream(self, device: torch.device) -> StandInStream:
        return StandInStream(self, device)

    def default_stream(self, device: torch.device) -> StandInStream:
        return self._defaults[device]

    def current_stream(self, device: torch.device) -> StandInStream:
        """In a thread of autograd's, the stream of the forward pass on its own device, the default one on others."""
        return self.chosen[device] if self.thread in (None, device) else self._defaults[device]

    @contextmanager
    def stream(self, stream: StandInStream) -> Iterator[None]:
        before, self.chosen = self.chosen, self.chosen | {stream.device: stream}
        thread, self.thread = self.thread, None
        try:
            yield
        finally:
            self.chosen, self.thread = before, thread

    def record_stream(self, tensor: Tensor, stream: StandInStream) -> None:
        self._recorded[self._storage(tensor)].add(stream.number)

    def enter_thread(self, device: torch.device, _gradients: Any) -> None:
        """From now on the thread of a device runs, of those that autograd has."""
        self.thread = device
        self.turns += [device] if self.turns[-1:] != [device] else []

    # What it watches.

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        inputs, outputs = _on_devices((args, kwargs)), _on_devices(result)
        if function is torch.ops.aten._to_copy.default and inputs[0].device != outputs[0].device:
            sender, receiver = (self.current_stream(each[0].device) for each in (inputs, outputs))
            sender.wait_stream(receiver)
            self._allocate(outputs[0], receiver)
            self._launch(sender, function, [inputs[0]], [outputs[0]])
            receiver.wait_stream(sender)
        elif not function.is_view and function.namespace != "prim" and inputs + outputs:  # prim: what a tensor is
            devices = {each.device for each in inputs + outputs}
            assert len(devices) == 1, f"{function} works on {devices}"
            stream = self.current_stream(devices.pop())
            for each in outputs:
                self._allocate(each, stream)
            self._launch(stream, function, inputs, [*outputs, *_mutated(function, args, kwargs or {})])
        return result

    def _storage(self, tensor: Tensor) -> int:
        """What names a tensor's memory while it lives; memory from before the watch was made on the default stream."""
        storage = tensor.untyped_storage()._cdata
        if storage not in self._allocated:
            self._allocate(tensor, self._defaults[tensor.device])
        return storage

    def _allocate(self, tensor: Tensor, stream: StandInStream) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._allocated:
            self._allocated[storage._cdata] = stream
            self.handler._handle_memory_allocation(storage._cdata)
            weakref.finalize(storage, self._free, storage._cdata).atexit = False

    def _free(self, storage: int) -> None:
        """A write on the allocation's stream, which may reuse the memory at once, but waits for recorded streams."""
        if self._over:
            return
        uses, waited_for = self.handler.tensors_accessed.accesses[storage], self._recorded.pop(storage, set())
        uses.reads = [read for read in uses.reads if read.stream not in waited_for]
        if uses.write and uses.write.stream in waited_for:
            uses.write = None
        self._judge(self._allocated.pop(storage), "the end of the memory", set(), {storage})
        self.handler._handle_memory_deallocation(storage)

    def _launch(self, stream: StandInStream, function: Any, read: Sequence[Tensor], written: Sequence[Tensor]) -> None:
        writes = {self._storage(each) for each in written}
        self._judge(stream, str(function), {self._storage(each) for each in read} - writes, writes)

    def _judge(self, stream: StandInStream, what: str, reads: set[int], writes: set[int]) -> None:
        errors = self.handler._handle_kernel_launch(stream.number, reads, writes, set(), what, defaultdict(list))
        for error in errors:
            now, before = (
                f"{each.operator} {each.type} it on {self.names[each.stream]}"
                for each in (error.current_access, error.previous_access)
            )
            self.found.append(f"{now}, which is not ordered after {before}")

    def end(self) -> None:
        """What is freed from now on is no part of the step."""
        self._over = True


def _on_devices(values: Any) -> list[Tensor]:
    """The tensors on one of the two devices; tokens and masks' numbers are on the host."""
    return [each for each in tree_leaves(values) if isinstance(each, Tensor) and each.device.index is not None]


def _mutated(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """What an operation writes into, by its schema."""
    arguments = function._schema.arguments
    given = [*zip(arguments, args, strict=False), *((each, kwargs.get(each.name)) for each in arguments[len(args) :])]
    return _on_devices([value for each, value in given if each.alias_info is not None and each.alias_info.is_write])


def watched_step(
    monkeypatch, network: Network, first: int, link: type[LocalLink] = LocalLink, on_default: bool = True
) -> Watch:
    """Watch a step of two towers on two devices; the thread of tower `first` runs ahead of the other.

    With `on_default=False` tower 1 runs on another stream, as in a `torch.cuda.stream` of the user's.
    """
    watch = Watch()
    with monkeypatch.context() as patch, FakeTensorMode():
        patch.setattr(links, "STREAMS", watch)
        patch.setattr(links, "WITH_STREAMS", "cpu")
        patch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: watch.record_stream(tensor, stream))
        model = TowerModel(network, Placement("two_devices", 2, DEVICES), link(list(DEVICES.values())), seed=0)
        stream = watch.default_stream(DEVICES[1]) if on_default else watch.Stream(DEVICES[1])
        with watch:
            images = [torch.ones(2, *network.image, device=device) for device in DEVICES.values()]
            labels = [torch.zeros(2, dtype=torch.long, device=device) for device in DEVICES.values()]
            with watch.stream(stream):
                logits = model.tower_logits(images, step=0)
                losses = [F.cross_entropy(*pair) for pair in zip(logits, labels, strict=True)]
                del logits
                _as_two_threads(watch, losses, first)
                torch.autograd.backward(losses)
        watch.end()
    return watch


def _as_two_threads(watch: Watch, losses: Sequence[Tensor], first: int) -> None:
    """Have autograd run as if each device had its thread, that of tower `first` always before the other's."""
    towers: dict[Node, int] = {}
    waiting = [(loss.grad_fn, tower) for tower, loss in enumerate(losses)]
    while waiting:
        node, tower = waiting.pop()
        if node is not None and node not in towers:
            (towers[node],) = getattr(node, "part", (tower,))  # a crossing's start hangs on every tower's finish
            waiting += [(following, towers[node]) for following, _ in node.next_functions]
    for node, tower in towers.items():
        node.register_prehook(partial(watch.enter_thread, DEVICES[tower]))
        if tower == first and node.next_functions:  # what has none adds to a weight's gradient, and goes first anyway
            node._set_sequence_nr(node._sequence_nr() + PRIORITY)
