"""Memory, parameters and operations of every layer, by the rules of Johnson's lecture 8 (EECS 498, CNN architectures).

Memory is 4 x channels x height x width bytes of a layer's output, for one image in float32. Operations are output
elements x operations for each of them, and a multiplication with its addition counts as one. ReLU, tanh, dropout and
the concatenation of branches have no line: they work in place and count nothing there.
"""

from dataclasses import dataclass
from math import prod

from alexnet_mp.network import rows
from alexnet_mp.network.costs import RowCost, Shape, network_cost
from alexnet_mp.network.table import Network

PRODUCTS = ("conv", "local", "fc", "summed_fc")
IN_PLACE = ("relu", "tanh", "dropout", "branches")


@dataclass(frozen=True)
class Line:
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
class Account:
    """A network's lines, without its auxiliary classifiers, and a line for each of those."""

    network: str
    towers: int
    image: Shape
    layers: tuple[Line, ...]  # every layer for itself
    lines: tuple[Line, ...]  # a row of the table each
    training_only: tuple[Line, ...]

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


def account(network: Network) -> Account:
    """Count a network. Raises ConfigurationError where a window does not fit its input."""
    costs = network_cost(network)
    of_layers = {
        name: _line(network, costs.row(name), row)
        for name, row in network.layer_rows.items()
        if rows.kind_of(row) not in IN_PLACE
    }
    lines, training_only = [], []
    evaluated: list[Line] = []
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
    return Account(network.name, network.towers, network.image, tuple(evaluated), tuple(lines), tuple(training_only))


def _line(network: Network, cost: RowCost, row: rows.LayerRow) -> Line:
    elements = network.towers * prod(cost.output_shape)
    each = _operations_each(cost, row)
    operations = elements * each
    return Line(
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


def _together(name: str, kind: str, shape: Shape, lines: list[Line]) -> Line:
    sums = [sum(getattr(line, key) for line in lines) for key in ("memory", "parameters", "operations")]
    return Line(name, kind, shape, sums[0], sums[1], None, sums[2], sum(line.multiply_adds for line in lines))
