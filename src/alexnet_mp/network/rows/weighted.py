"""Rows with weights: convolutions, locally-connected and fully-connected layers, and the classifier."""

from dataclasses import dataclass, replace
from math import prod
from typing import Annotated, Literal

from alexnet_mp.network.rows.base import NOT_NEGATIVE, POSITIVE, Place, Reads, Row, RowCost, Shape, row_kind

Count = Annotated[int, POSITIVE]
Deviation = Annotated[float | Literal["he"], NOT_NEGATIVE]
Pad = Annotated[tuple[int, int], replace(NOT_NEGATIVE, holds=lambda pad: min(pad) >= 0)]


class _ProductRow(Row):
    has_weights = True
    in_branches = False
    follows = False


@dataclass(frozen=True)
class ConvolutionRow(_ProductRow):
    """Square kernels over maps.

    `pad` is (top and left, bottom and right) in pixels of zeros. `std` is the standard deviation of the initial
    weights, or `he` for sqrt(2 / fan-in); `bias` the initial bias.
    """

    kernels: Count
    size: Count
    reads: Reads
    std: Deviation
    bias: float
    stride: Count = 1
    pad: Pad = (0, 0)

    dealt = "kernels"

    def cost(self, at: Place) -> RowCost:
        positions = at.windows(self.size, self.stride, self.pad)
        cost = _product(self, at, self.reads, self.kernels, (at.inputs[0], self.size, self.size))
        products = cost.multiply_adds * prod(positions)
        return replace(cost, output_shape=(self.kernels, *positions), multiply_adds=products)


@row_kind("conv")
@dataclass(frozen=True)
class Conv(ConvolutionRow):
    """A convolution; its numbers are those of `ConvolutionRow`."""

    in_branches = True

    def in_words(self) -> str:
        stride = f", stride {self.stride}" if self.stride > 1 else ""
        begin, end = self.pad
        pad = f", pad {begin}" if begin == end else f", pad {begin} and {end}"
        return f"{self.kernels} kernels {self.size}×{self.size}{stride}{pad if any(self.pad) else ''}"


@row_kind("local")
@dataclass(frozen=True)
class Local(ConvolutionRow):
    """A locally-connected layer: a convolution whose weights are not shared, each position has its own.

    So the authors had it in their networks for CIFAR-10 (cuda-convnet, layers-conv-local-13pct.cfg, `type=local`); the
    biases are not shared either. In networks of one tower only.
    """

    one_tower_only = True

    def cost(self, at: Place) -> RowCost:
        cost = super().cost(at)
        positions = cost.output_shape[1:]
        shapes = cost.parameters_of_a_tower.items()
        unshared = {name.removeprefix("own_"): (*shape, *positions) for name, shape in shapes}
        return replace(cost, parameters_of_a_tower=unshared)


@row_kind("fc")
@dataclass(frozen=True)
class FullyConnected(_ProductRow):
    """A fully-connected layer; it flattens what it reads, channel by channel."""

    units: Count
    reads: Reads
    std: Deviation
    bias: float

    dealt = "units"

    def cost(self, at: Place) -> RowCost:
        return _product(self, at, self.reads, self.units, (prod(at.inputs),))

    def in_words(self) -> str:
        return f"{self.units} units"


@row_kind("classifier")
@dataclass(frozen=True)
class Classifier(_ProductRow):
    """The classifier: every tower multiplies its own inputs, and the partial logits are summed across towers.

    Tower 0 owns the bias. The number of outputs is the table's `classes`.
    """

    std: Deviation
    bias: float

    def cost(self, at: Place) -> RowCost:
        inputs = prod(at.inputs)
        return RowCost(
            at.name,
            self.kind,
            "own",
            at.inputs,
            (at.classes,),
            parameters_of_a_tower={"own_weight": (at.classes, inputs), "bias": (at.classes,)},
            bias_on_tower_0_only=True,
            fan_in=at.towers * inputs,
            multiply_adds=at.classes * inputs,
            operations_each=inputs,
            # Every tower computes the loss from the full logits, so nothing returns in the backward pass.
            crossing_floats_forward=at.classes if at.towers > 1 else 0,
        )

    def in_words(self) -> str:
        return "one unit a class, summed over the towers"


def _product(row: Row, at: Place, reads: Reads, outputs: int, inputs: Shape) -> RowCost:
    """Of a row that multiplies `inputs` of each tower that it reads into so many `outputs`, at one position.

    A row that reads both towers holds a weight for its own tower and one for its peers; see `TwoInputLayer`.
    """
    towers_read = at.towers if reads == "both" else 1
    fan_in = towers_read * prod(inputs)
    weights = {"weight": (outputs, *inputs)}
    if reads == "both":
        peers = {"peer_weight": (outputs, (at.towers - 1) * inputs[0], *inputs[1:])} if at.towers > 1 else {}
        weights = {"own_weight": (outputs, *inputs), **peers}
    crossing = prod(at.inputs) if towers_read > 1 else 0
    return RowCost(
        at.name,
        row.kind,
        reads,
        at.inputs,
        (outputs,),
        parameters_of_a_tower={**weights, "bias": (outputs,)},
        fan_in=fan_in,
        multiply_adds=outputs * fan_in,
        operations_each=fan_in,
        crossing_floats_forward=crossing,
        crossing_floats_backward=crossing,
    )
