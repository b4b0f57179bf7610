"""What a device holds in a training step, counted from the table; the largest batch that fits."""

from dataclasses import dataclass
from itertools import zip_longest
from math import floor, prod

from alexnet_mp.network.costs import NetworkCost
from alexnet_mp.performance.cost_model.compute import PARAMETER_BYTES, VALUE_BYTES
from alexnet_mp.performance.cost_model.hardware import Hardware

# Rows that keep no input for the backward pass, by kind; a ReLU and a tanh keep their output instead.
KEEPS_NO_INPUT = ("relu", "tanh", "dropout", "global_avgpool", "branches")
INDEX_BYTES = 8  # of every maximum that a pooling row kept
MASK_BYTES = 1  # of every unit of a dropout row


@dataclass(frozen=True)
class StepMemory:
    """Bytes on one device. `activations` and `buffers` grow with the batch, the rest does not.

    `buffers`: the two largest maps that exist at once in the backward pass only, and what a crossing sends and
    receives, or the copies of the gradients that an all-reduce works on (these do not grow). `reserved` is not ours.
    """

    parameters: int
    gradients: int
    momentum: int
    activations: int
    buffers: int
    reserved: int

    @property
    def total(self) -> int:
        return sum(vars(self).values())


def memory_of_a_step(
    costs: NetworkCost,
    hardware: Hardware,
    batch: int,
    towers: int,
    copied_gradients: bool,
    precision: str,
    crossing_dtype: str,
) -> StepMemory:
    """Bytes of a step on `batch` images, on a device that holds the first `towers` of the network's towers.

    If others are elsewhere, copies of their halves arrive and are kept for the backward pass. `copied_gradients`:
    data-parallel buckets keep a copy of every gradient.
    """
    split = towers < costs.towers
    # The other towers' halves, which a layer that reads both keeps.
    halves = sum(prod(row.input_shape) for row in costs.rows if row.reads == "both") if split else 0
    parameters, value = PARAMETER_BYTES * sum(costs.parameters_per_tower[:towers]), VALUE_BYTES[precision]
    lower_precision = value * parameters // PARAMETER_BYTES if value < PARAMETER_BYTES else 0
    sent = max((row.crossing_floats_forward for row in costs.rows), default=0) if split else 0
    crossing = 2 * (costs.towers - 1) * sent * VALUE_BYTES[crossing_dtype]
    largest = max((prod(row.input_shape) + prod(row.output_shape) for row in costs.rows[1:]), default=0)
    return StepMemory(
        parameters=parameters + lower_precision,
        gradients=parameters,
        momentum=parameters,
        activations=batch * (towers * kept_bytes(costs, value) + (costs.towers - 1) * value * halves),
        buffers=batch * (towers * value * largest + crossing) + (parameters if copied_gradients else 0),
        reserved=round(hardware.reserved_bytes),
    )


def largest_batch(at_one: StepMemory, at_two: StepMemory, capacity: float) -> int:
    """The most images that fit, from the memory at one image and at two, which differ by what an image takes."""
    an_image = at_two.total - at_one.total
    return max(0, floor((capacity - (at_one.total - an_image)) / an_image))


def kept_bytes(costs: NetworkCost, value: int) -> int:
    """Bytes that one tower keeps of one image until the backward pass, each map counted once, the image among them."""
    total = value * prod(costs.rows[0].input_shape)
    for row, after in zip_longest(costs.rows, costs.rows[1:]):
        elements = prod(row.output_shape)
        if row.kind in ("relu", "tanh") or (after is not None and after.kind not in KEEPS_NO_INPUT):
            total += value * elements
        if row.kind in ("lrn", "spatial_norm"):
            total += value * elements  # the sum of squares, or what follows from it
        if row.kind == "local":
            total += value * row.fan_in * prod(row.output_shape[1:])  # the windows
        total += elements * {"maxpool": INDEX_BYTES, "dropout": MASK_BYTES}.get(row.kind, 0)
    return total
