"""What a network costs, from its table alone: parameters, multiply-adds, memory and crossing traffic of every row."""

from dataclasses import dataclass
from math import prod

from alexnet_mp.network.rows import Place, RowCost, Shape, walk
from alexnet_mp.network.table import Network


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
    """Walk the table from the image on. Raises ConfigurationError if a window does not fit its input."""
    start = Place("", network.image, network.towers, network.classes)
    return NetworkCost(network.towers, tuple(walk(network.rows, start)))


@dataclass(frozen=True)
class LayerCost:
    """One layer over all towers, or all the layers of a row with branches.

    `output_shape` is one tower's. `operations_each` are of one element of the output, None if several layers are
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
    """Count a network. Raises ConfigurationError if a window does not fit its input."""
    costs = {cost.name: cost for cost in network_cost(network).rows}
    counted = {name: _layer(network, cost) for name, cost in costs.items() if cost.operations_each is not None}
    lines, training_only = [], []
    evaluated: list[LayerCost] = []
    for name, row in network.rows.items():
        inside = [counted[full] for full in row.within(name) if full in counted]
        together = name not in row.within(name)
        if together and name not in costs:
            training_only.append(_together(name, row.kind, inside[-1].output_shape, inside))
            continue
        evaluated += inside
        lines += [_together(name, row.kind, costs[name].output_shape, inside)] if together else inside
    return LayerCosts(network.name, network.towers, network.image, tuple(evaluated), tuple(lines), tuple(training_only))


def _layer(network: Network, cost: RowCost) -> LayerCost:
    elements, each = network.towers * prod(cost.output_shape), cost.operations_each or 0
    return LayerCost(
        name=cost.name,
        kind=cost.kind,
        output_shape=cost.output_shape,
        memory=4 * elements,
        parameters=sum(cost.parameters(tower) for tower in range(network.towers)),
        operations_each=each,
        operations=elements * each,
        multiply_adds=network.towers * cost.multiply_adds,
    )


def _together(name: str, kind: str, shape: Shape, lines: list[LayerCost]) -> LayerCost:
    sums = [sum(getattr(line, key) for line in lines) for key in ("memory", "parameters", "operations")]
    return LayerCost(name, kind, shape, sums[0], sums[1], None, sums[2], sum(line.multiply_adds for line in lines))
