"""From the table alone: shapes, parameters, multiply-adds, activation memory and crossing traffic of every row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network import rows
from alexnet_mp.network.rows import (
    Auxiliary,
    BatchNorm,
    Branches,
    Classifier,
    Conv,
    ConvolutionRow,
    FullyConnected,
    GlobalAveragePool,
    LayerRow,
    LocalResponseNorm,
    PoolingRow,
    SpatialNorm,
    kind_of,
    reads_of,
)
from alexnet_mp.network.table import Network

Shape = tuple[int, ...]


@dataclass(frozen=True)
class RowCost:
    """What one row costs on one tower, per image.

    Shapes are without the batch: (maps, height, width) or (units,). `crossing_floats_*` are the floats that one tower
    sends to each of its peers for this row. `fan_in` counts what one unit sums over, from all towers. Multiply-adds
    count matrix work alone. `training_only`: it belongs to an auxiliary classifier.

    Rows in branches have their full names, and the row that they are in is the concatenation of their outputs.
    """

    name: str
    kind: str
    reads: str
    input_shape: Shape
    output_shape: Shape
    weights: int
    fan_in: int
    biases: int
    bias_on_tower_0_only: bool
    multiply_adds: int
    crossing_floats_forward: int
    crossing_floats_backward: int
    training_only: bool = False

    @property
    def activation_bytes(self) -> int:
        """Bytes of this row's output for one image in float32, as Johnson's lecture 8 counts memory."""
        return 4 * prod(self.output_shape)

    def parameters(self, tower: int) -> int:
        """Parameters that `tower` holds for this row."""
        return self.weights + (self.biases if tower == 0 or not self.bias_on_tower_0_only else 0)


@dataclass(frozen=True)
class NetworkCost:
    """The rows' costs and their totals; `multiply_adds` is one image through all towers, forward.

    Auxiliary classifiers are counted: they are held and computed in training. `Network.without_auxiliaries` has none.
    """

    towers: int
    rows: tuple[RowCost, ...]

    @property
    def parameters_per_tower(self) -> list[int]:
        return [sum(row.parameters(tower) for row in self.rows) for tower in range(self.towers)]

    @property
    def parameters(self) -> int:
        return sum(self.parameters_per_tower)

    @property
    def multiply_adds(self) -> int:
        return self.towers * sum(row.multiply_adds for row in self.rows)

    @property
    def crossing_floats_forward(self) -> int:
        return sum(row.crossing_floats_forward for row in self.rows)

    @property
    def crossing_floats_backward(self) -> int:
        return sum(row.crossing_floats_backward for row in self.rows)

    def crossing_bytes_per_step(self, batch: int, bytes_per_float: int = 4) -> int:
        """Bytes that one tower sends to all its peers in one training step on `batch` images."""
        floats = self.crossing_floats_forward + self.crossing_floats_backward
        return (self.towers - 1) * floats * batch * bytes_per_float

    def row(self, name: str) -> RowCost:
        return next(row for row in self.rows if row.name == name)


def network_cost(network: Network) -> NetworkCost:
    """Walk the table from the image on. Raises ConfigurationError where a window does not fit its input."""
    rows: list[RowCost] = []
    shape: Shape = network.image
    for name, row in network.rows.items():
        match row:
            case Branches():
                inside = [_run(network, f"{name}_{each}", layers, shape) for each, layers in row.branches.items()]
                rows += [cost for branch in inside for cost in branch]
                rows.append(_joined(name, [branch[-1].output_shape for branch in inside]))
            case Auxiliary():
                rows += [replace(cost, training_only=True) for cost in _run(network, name, row.layers, shape)]
                continue
            case _:
                rows.append(_row_cost(network, name, row, shape))
        shape = rows[-1].output_shape
    return NetworkCost(network.towers, tuple(rows))


def _run(network: Network, before: str, layers: Mapping[str, LayerRow], inputs: Shape) -> list[RowCost]:
    rows: list[RowCost] = []
    for name, row in layers.items():
        rows.append(_row_cost(network, f"{before}_{name}", row, rows[-1].output_shape if rows else inputs))
    return rows


def _joined(name: str, shapes: Sequence[Shape]) -> RowCost:
    """The concatenation of branches: a copy of what comes out of them."""
    if len({shape[1:] for shape in shapes}) > 1:
        raise ConfigurationError(
            f"{name}: its branches end in maps of different sizes, {', '.join(map(str, shapes))}; change pad or stride"
        )
    shape = (sum(shape[0] for shape in shapes), *shapes[0][1:])
    return RowCost(name, "branches", "own", shape, shape, 0, 0, 0, False, 0, 0, 0)


def _row_cost(network: Network, name: str, row: LayerRow, inputs: Shape) -> RowCost:
    reads = reads_of(row)
    towers_read = network.towers if reads == "both" else 1
    outputs, weights, biases, multiply_adds, fan_in = inputs, 0, 0, 0, 0
    crossing_forward = crossing_backward = 0
    if isinstance(row, ConvolutionRow):
        height, width = (_windows(name, row, side + sum(row.pad)) for side in _sides(name, inputs))
        outputs, fan_in = (row.kernels, height, width), towers_read * inputs[0] * row.size**2
        copies = 1 if isinstance(row, Conv) else height * width  # of kernels and biases
        weights, biases = copies * row.kernels * fan_in, copies * row.kernels
        multiply_adds = row.kernels * fan_in * height * width
    elif isinstance(row, FullyConnected):
        outputs, fan_in = (row.units,), towers_read * prod(inputs)
        weights, biases = row.units * fan_in, row.units
        multiply_adds = weights
    elif isinstance(row, Classifier):
        outputs, fan_in = (network.classes,), network.towers * prod(inputs)
        weights, biases = network.classes * prod(inputs), network.classes
        multiply_adds = weights
        # Every tower computes the loss from the full logits, so nothing returns in the backward pass.
        crossing_forward = network.classes if network.towers > 1 else 0
    elif isinstance(row, BatchNorm):
        weights = biases = inputs[0]
    elif isinstance(row, LocalResponseNorm | SpatialNorm):
        _sides(name, inputs)
    elif isinstance(row, PoolingRow):
        outputs = (inputs[0], *(_windows(name, row, side + sum(row.pad)) for side in _sides(name, inputs)))
    elif isinstance(row, GlobalAveragePool):
        _sides(name, inputs)
        outputs = (inputs[0], 1, 1)
    if towers_read > 1:
        crossing_forward = crossing_backward = prod(inputs)
    return RowCost(
        name=name,
        kind=kind_of(row),
        reads=reads,
        input_shape=inputs,
        output_shape=outputs,
        weights=weights,
        fan_in=fan_in,
        biases=biases,
        bias_on_tower_0_only=isinstance(row, Classifier),
        multiply_adds=multiply_adds,
        crossing_floats_forward=crossing_forward,
        crossing_floats_backward=crossing_backward,
    )


def _sides(name: str, shape: Shape) -> tuple[int, int]:
    if len(shape) != 3:
        raise ConfigurationError(f"{name} needs maps (channels, height, width) to work on, but its input is {shape}")
    return shape[1], shape[2]


def _windows(name: str, row: ConvolutionRow | PoolingRow, side: int) -> int:
    if side < row.size:
        raise ConfigurationError(
            f"{name}: a {row.size}x{row.size} window does not fit an input {side} px wide; "
            "use larger images or take a pooling row out of the table"
        )
    return (side - row.size) // row.stride + 1


PRODUCTS = ("conv", "local", "fc", "classifier")
IN_PLACE = ("relu", "tanh", "dropout", "branches")


@dataclass(frozen=True)
class LayerCost:
    """One layer over all towers, or all the layers of a row with branches.

    `output_shape` is one tower's. `operations_each` are of one element of the output, None where several layers are
    in the line; `multiply_adds` are those of `operations` that are matrix work.
    """

    name: str
    kind: str
    output_shape: Shape
    memory: int
    parameters: int
    operations_each: int | None
    operations: int
    multiply_adds: int


@dataclass(frozen=True)
class LayerCosts:
    """A network's lines, without its auxiliary classifiers, and a line for each of those."""

    network: str
    towers: int
    image: Shape
    layers: tuple[LayerCost, ...]  # every layer for itself
    lines: tuple[LayerCost, ...]  # a row of the table each
    training_only: tuple[LayerCost, ...]

    @property
    def memory(self) -> int:
        return sum(line.memory for line in self.layers)

    @property
    def parameters(self) -> int:
        return sum(line.parameters for line in self.layers)

    @property
    def operations(self) -> int:
        return sum(line.operations for line in self.layers)

    @property
    def multiply_adds(self) -> int:
        return sum(line.multiply_adds for line in self.layers)


def layer_costs(network: Network) -> LayerCosts:
    """Count a network. Raises ConfigurationError where a window does not fit its input."""
    costs = network_cost(network)
    of_layers = {
        name: _line(network, costs.row(name), row)
        for name, row in network.layer_rows.items()
        if rows.kind_of(row) not in IN_PLACE
    }
    lines, training_only = [], []
    evaluated: list[LayerCost] = []
    for name, row in network.rows.items():
        inside = [of_layers[full] for full in rows.rows_within(name, row) if full in of_layers]
        if isinstance(row, rows.Auxiliary):
            training_only.append(_together(name, "auxiliary", inside[-1].output_shape, inside))
            continue
        evaluated += inside
        if isinstance(row, rows.Branches):
            lines.append(_together(name, "branches", costs.row(name).output_shape, inside))
        else:
            lines += inside
    return LayerCosts(network.name, network.towers, network.image, tuple(evaluated), tuple(lines), tuple(training_only))


def _line(network: Network, cost: RowCost, row: rows.LayerRow) -> LayerCost:
    elements = network.towers * prod(cost.output_shape)
    each = _operations_each(cost, row)
    operations = elements * each
    return LayerCost(
        name=cost.name,
        kind=cost.kind,
        output_shape=cost.output_shape,
        memory=4 * elements,
        parameters=sum(cost.parameters(tower) for tower in range(network.towers)),
        operations_each=each,
        operations=operations,
        multiply_adds=operations if cost.kind in PRODUCTS else 0,
    )


def _operations_each(cost: RowCost, row: rows.LayerRow) -> int:
    match row:
        case rows.MaxPool() | rows.AveragePool():
            return row.size**2
        case rows.GlobalAveragePool():
            return prod(cost.input_shape[1:])
        case rows.LocalResponseNorm():
            return row.n + 2  # a square added for each map in the window, a power, a product
        case rows.SpatialNorm():
            return row.size**2 + 2
        case rows.BatchNorm():
            return 1
        case _:
            return cost.multiply_adds // prod(cost.output_shape)


def _together(name: str, kind: str, shape: Shape, lines: list[LayerCost]) -> LayerCost:
    sums = [sum(getattr(line, key) for line in lines) for key in ("memory", "parameters", "operations")]
    return LayerCost(name, kind, shape, sums[0], sums[1], None, sums[2], sum(line.multiply_adds for line in lines))
