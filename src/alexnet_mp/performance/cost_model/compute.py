"""What one device's own work takes: each row of the table forward and backward, and the optimizer; no communication."""

from dataclasses import dataclass
from math import prod
from typing import Literal

from alexnet_mp.network.costs import NetworkCost
from alexnet_mp.network.rows import RowCost
from alexnet_mp.performance.cost_model.hardware import Hardware
from alexnet_mp.performance.cost_model.software import KERNELS_OF_A_PRODUCT, OTHER_PASSES, PASSES

Part = Literal["convolution", "matmul", "elementwise"]

PARAMETER_BYTES = 4  # parameters, gradients and momentum stay in float32 in every precision
VALUE_BYTES = {"float32": 4, "tf32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class RowTime:
    """Seconds of one row on one device. `own_share` of it needs nothing from the other towers.

    `operations` are those that the host launches, for both directions. `gradient_bytes` are complete when the row's
    backward pass ends; rows without parameters have none.
    """

    name: str
    part: Part
    forward: float
    backward: float
    own_share: float
    gradient_bytes: int
    operations: int = 0


def row_times(costs: NetworkCost, hardware: Hardware, batch: int, towers: int, precision: str) -> list[RowTime]:
    """The rows of a step on `batch` images, on a device that holds `towers` of the network's towers.

    A product takes the longer of its arithmetic and its memory traffic: with few images a fully-connected layer waits
    for its weights. Everything else is counted as memory traffic.
    """
    values = towers * VALUE_BYTES[precision]
    rows = []
    for row in costs.rows:
        if not row.multiply_adds:
            gradients = PARAMETER_BYTES * towers * (row.weights + row.biases)
            one_pass = values * prod(row.input_shape) * batch
            rows.append(_elementwise(row.name, row.kind, one_pass, towers, gradients, hardware))
            continue
        reads = costs.towers if row.reads == "both" else 1
        rows.append(_product(row, reads, hardware, batch, towers, precision))
        if reads > 1:
            one_pass = values * prod(row.output_shape) * batch
            rows.append(_elementwise(f"{row.name} sum of halves", "combine", one_pass, towers, 0, hardware))
    return rows


def optimizer_seconds(parameters: int, hardware: Hardware) -> float:
    """Seconds of the update: memory traffic of weights, gradients and momentum."""
    traffic = hardware.passes_of("optimizer") * PARAMETER_BYTES * parameters
    bandwidth = hardware.memory_bandwidth * hardware.fractions.memory
    return PASSES["optimizer"].kernels * hardware.waits_for_launch + traffic / bandwidth


def _product(row: RowCost, reads: int, hardware: Hardware, batch: int, towers: int, precision: str) -> RowTime:
    """A layer that reads so many towers."""
    part: Part = "convolution" if row.kind == "conv" else "matmul"
    fractions = hardware.fractions
    arithmetic = 2 * towers * row.multiply_adds * batch / (hardware.peak(precision) * getattr(fractions, part))
    inputs, outputs = reads * prod(row.input_shape) * batch, prod(row.output_shape) * batch
    values = towers * VALUE_BYTES[precision] * (row.weights + inputs + outputs)
    once = max(arithmetic, values / (hardware.memory_bandwidth * fractions.memory))
    # Backward: once for the weights, once for the inputs; the image needs no gradient.
    products = 1 if row.reads == "image" else 2
    launch = towers * hardware.waits_for_launch
    biases = row.biases if row.bias_on_tower_0_only else towers * row.biases
    return RowTime(
        row.name,
        part,
        forward=once + launch,
        backward=products * once + (KERNELS_OF_A_PRODUCT - 1) * launch,
        own_share=1 / reads,
        gradient_bytes=PARAMETER_BYTES * (towers * row.weights + biases),
        operations=reads * towers * KERNELS_OF_A_PRODUCT,
    )


def _elementwise(
    name: str, kind: str, bytes_of_a_pass: int, towers: int, gradient_bytes: int, hardware: Hardware
) -> RowTime:
    passes = PASSES.get(kind, OTHER_PASSES)
    one_pass = bytes_of_a_pass / (hardware.memory_bandwidth * hardware.fractions.memory)
    operations = towers * passes.kernels
    seconds = hardware.passes_of(kind) * one_pass + operations * hardware.waits_for_launch
    forward = seconds * passes.forward / passes.total
    return RowTime(name, "elementwise", forward, seconds - forward, 1.0, gradient_bytes, operations)
