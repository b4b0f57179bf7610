"""The matrix-only bound: every convolution and matrix product of a tower's step, timed alone, the faster of its ways.

No step of these towers can be faster on this machine than its matrix products are by themselves. Each is timed with the
other towers' processes doing the same at the same moment, as in `split_two_processes`; in NCHW and in channels-last,
on tensors that are in that format already; and what reads both towers as two products and as one of the joined input.
Additions, biases, normalization, pooling, exchange and update come on top in a real step.

Gradients are asked of autograd for one input alone, which is what a backward pass runs for it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from statistics import median
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from alexnet_mp.common.host import keep_large_blocks, now
from alexnet_mp.network import rows
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import Network
from alexnet_mp.parallel.mesh import open_mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.performance.benchmark.measurement import MatrixWork, Task

MATRIX_BOUND = "matrix_bound"
_REPEATS = 3
_CALLS_ON_GPU = 100  # of each repeat: one product is over before the clock is read
_HOPELESS = 1.25  # a way that takes so many times the best one's time at first is not timed further

Pass = Literal["forward", "input gradient", "weight gradient"]
_PASSES: tuple[Pass, ...] = ("forward", "input gradient", "weight gradient")
MEMORY_FORMATS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}


@dataclass(frozen=True)
class MatrixProduct:
    """A convolution of inputs (maps, height, width) or a product with (inputs,), for one tower; shapes without batch.

    `stride` and `padding` are of a convolution; a padding that is not the same on all sides is in the input's shape.
    """

    inputs: tuple[int, ...]
    weight: tuple[int, ...]
    stride: int = 1
    padding: int = 0

    @property
    def multiply_adds(self) -> int:
        """Of the forward pass, for one image."""
        if len(self.inputs) == 1:
            return prod(self.weight)
        sides = [(side + 2 * self.padding - self.weight[-1]) // self.stride + 1 for side in self.inputs[1:]]
        return prod(self.weight) * prod(sides)


@dataclass(frozen=True)
class MatrixLayer:
    """One layer of one tower: the ways to compute it, each some products, and the passes that it has."""

    name: str
    ways: dict[str, tuple[MatrixProduct, ...]]
    passes: tuple[Pass, ...]


def matrix_layers(network: Network) -> list[MatrixLayer]:
    """What there is to multiply in one step of one tower; the first layer needs no gradient of the image."""
    layers = []
    costs = network_cost(network)
    for name, row in network.layer_rows.items():
        if not isinstance(row, rows.Conv | rows.FullyConnected | rows.Classifier):  # no plain product
            continue
        inputs = costs.row(name).input_shape
        own = _product(row, inputs, network.classes)
        ways: dict[str, tuple[MatrixProduct, ...]] = {"whole": (own,)}
        if rows.reads_of(row) == "both" and network.towers > 1:
            peers = _product(row, ((network.towers - 1) * inputs[0], *inputs[1:]), network.classes)
            joined = _product(row, (network.towers * inputs[0], *inputs[1:]), network.classes)
            ways = {"own and peers": (own, peers), "joined": (joined,)}
        passes = tuple(each for each in _PASSES if each != "input gradient" or rows.reads_of(row) != "image")
        layers.append(MatrixLayer(name, ways, passes))
    return layers


def _product(
    row: rows.Conv | rows.FullyConnected | rows.Classifier, inputs: tuple[int, ...], classes: int
) -> MatrixProduct:
    if isinstance(row, rows.Conv):
        begin, end = row.pad
        weight = (row.kernels, inputs[0], row.size, row.size)
        if begin == end:
            return MatrixProduct(inputs, weight, row.stride, begin)
        padded = (inputs[0], *(side + begin + end for side in inputs[1:]))
        return MatrixProduct(padded, weight, row.stride)
    units = row.units if isinstance(row, rows.FullyConnected) else classes
    return MatrixProduct((prod(inputs),), (units, prod(inputs)))


def measure_matrix_work(task: Task) -> MatrixWork:
    """Time every product of one step, together with the processes of the other towers."""
    keep_large_blocks()  # as the split does
    placement = choose_placement("simulated", task.device, 1)
    torch.manual_seed(task.seed)
    seconds: dict[str, float] = {}
    ways: dict[str, str] = {}
    with open_mesh(placement, task.deadline_seconds) as mesh:
        clock = Clock(placement.devices[0], lambda seconds: max(each for (each,) in mesh.gather([seconds])))
        for layer in matrix_layers(task.network):
            timed = {
                way: [time_product(product, task.batch_size, layer.passes, clock) for product in products]
                for way, products in layer.ways.items()
            }
            for each in layer.passes:
                name = f"{layer.name} {each}"
                totals = {way: sum(times[each][0] for times in found) for way, found in timed.items()}
                best = min(totals, key=totals.__getitem__)
                seconds[name] = totals[best]
                ways[name] = ", ".join([best, *(times[each][1] for times in timed[best])])
    return MatrixWork(seconds, ways, torch.get_num_threads())


@dataclass(frozen=True)
class Clock:
    device: torch.device
    slowest: Callable[[float], float]  # of what every tower's process passes; all wait for all

    def seconds(self, function: Callable[[], object], repeats: int) -> list[float]:
        """Seconds of some calls; all towers begin together."""
        self.slowest(0.0)
        calls = 1 if self.device.type == "cpu" else _CALLS_ON_GPU
        times = []
        for _ in range(repeats):
            started = now([self.device])
            for _ in range(calls):
                function()
            times.append((now([self.device]) - started) / calls)
        return times


def time_product(
    product: MatrixProduct, batch_size: int, passes: Sequence[Pass], clock: Clock
) -> dict[Pass, tuple[float, str]]:
    """For each pass the seconds of the fastest way, and its name."""
    make = _convolutions if len(product.inputs) > 1 else _matrix_products
    calls = make(product, batch_size, clock.device)
    found = {}
    for each in passes:
        best = float("inf"), ""
        for way, call in calls[each].items():
            call()  # oneDNN prepares a shape once
            # All towers decide alike: one that went on alone would have the machine for itself.
            first = clock.seconds(call, 1)
            if clock.slowest(first[0]) > _HOPELESS * clock.slowest(best[0]):
                continue
            best = min(best, (median(first + clock.seconds(call, _REPEATS - 1)), way))
        found[each] = best
    return found


_Calls = dict[Pass, dict[str, Callable[[], object]]]


def _convolutions(product: MatrixProduct, batch_size: int, device: torch.device) -> _Calls:
    calls: _Calls = {each: {} for each in _PASSES}
    for name, memory_format in MEMORY_FORMATS.items():
        inputs = torch.randn(batch_size, *product.inputs, device=device).to(memory_format=memory_format)
        weight = torch.randn(product.weight, device=device).to(memory_format=memory_format)
        of_inputs, of_weight = inputs.detach().requires_grad_(), weight.detach().requires_grad_()

        convolve = partial(F.conv2d, stride=product.stride, padding=product.padding)
        calls["forward"][name] = partial(convolve, inputs, weight)
        calls["input gradient"][name] = _gradient(convolve(of_inputs, weight), of_inputs)
        calls["weight gradient"][name] = _gradient(convolve(inputs, of_weight), of_weight)
    return calls


def _gradient(outputs: Tensor, of: Tensor) -> Callable[[], object]:
    gradient = torch.randn_like(outputs)  # in the memory format of the outputs
    return lambda: torch.autograd.grad(outputs, of, gradient, retain_graph=True)


def _matrix_products(product: MatrixProduct, batch_size: int, device: torch.device) -> _Calls:
    inputs = torch.randn(batch_size, *product.inputs, device=device)  # [N, inputs]
    weight = torch.randn(product.weight, device=device)  # [units, inputs]
    gradient = torch.randn(batch_size, product.weight[0], device=device)  # [N, units]
    return {
        "forward": {"rows": lambda: inputs.mm(weight.t()), "columns": lambda: weight.mm(inputs.t())},
        "input gradient": {"rows": lambda: gradient.mm(weight), "columns": lambda: weight.t().mm(gradient.t())},
        "weight gradient": {"rows": lambda: gradient.t().mm(inputs), "columns": lambda: inputs.t().mm(gradient)},
    }
