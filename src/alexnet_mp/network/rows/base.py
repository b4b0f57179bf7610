"""What every kind of row has: fields, shape and cost at its place in a network, and words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from math import prod
from typing import Any, ClassVar, Literal, TypeVar

from alexnet_mp.common.schema import Bound, choice, from_mapping
from alexnet_mp.errors import ConfigurationError

Reads = Literal["image", "own", "both"]
Shape = tuple[int, ...]

POSITIVE = Bound("be at least 1", lambda value: value >= 1)
ODD = Bound("be odd, so that the window has a middle", lambda value: value % 2 == 1)
NOT_NEGATIVE = Bound("not be negative", lambda value: value == "he" or not value < 0)


@dataclass(frozen=True)
class Place:
    """Where a row stands in a network.

    `inputs` is what one tower hands it for one image: (maps, height, width) or (units,).
    """

    name: str
    inputs: Shape
    towers: int
    classes: int

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the maps. Raises ConfigurationError if the inputs are no maps."""
        if len(self.inputs) != 3:
            raise ConfigurationError(
                f"{self.name} needs maps (channels, height, width) to work on, but its input is {self.inputs}"
            )
        return self.inputs[1], self.inputs[2]

    def windows(self, size: int, stride: int, pad: tuple[int, int]) -> tuple[int, int]:
        """How many windows fit below one another, and beside. Raises ConfigurationError if none does."""
        counts = []
        for side in (each + sum(pad) for each in self.sides):
            if side < size:
                raise ConfigurationError(
                    f"{self.name}: a {size}x{size} window does not fit an input {side} px wide; "
                    "use larger images or take a pooling row out of the table"
                )
            counts.append((side - size) // stride + 1)
        return counts[0], counts[1]


@dataclass(frozen=True)
class RowCost:
    """What one row costs on one tower, per image.

    Shapes are without the batch: (maps, height, width) or (units,). `parameters_of_a_tower` and `buffers_of_a_tower`
    have the names and shapes of the layer's tensors. `fan_in` counts what one unit sums over, from all towers.
    Multiply-adds count matrix work alone. `operations_each` are those of an element of the output, as Johnson's
    lecture 8 counts them; None if it counts nothing for such a row, which works in place. `crossing_floats_*` are the
    floats that one tower sends to each of its peers for this row. `training_only`: it belongs to an auxiliary
    classifier.

    Rows in branches have their full names, and the row that they are in is the concatenation of their outputs.
    """

    name: str
    kind: str
    reads: Reads
    input_shape: Shape
    output_shape: Shape
    parameters_of_a_tower: Mapping[str, Shape] = field(default_factory=dict)
    buffers_of_a_tower: Mapping[str, Shape] = field(default_factory=dict)
    bias_on_tower_0_only: bool = False
    fan_in: int = 0
    multiply_adds: int = 0
    operations_each: int | None = None
    crossing_floats_forward: int = 0
    crossing_floats_backward: int = 0
    training_only: bool = False

    @property
    def weights(self) -> int:
        """Parameters of a tower but for the biases."""
        return sum(prod(shape) for name, shape in self.parameters_of_a_tower.items() if name != "bias")

    @property
    def biases(self) -> int:
        """Biases of a tower that has them, or a normalization's shifts."""
        return prod(self.parameters_of_a_tower["bias"]) if "bias" in self.parameters_of_a_tower else 0

    @property
    def activation_bytes(self) -> int:
        """Bytes of this row's output for one image in float32, as Johnson's lecture 8 counts memory."""
        return 4 * prod(self.output_shape)

    def parameters(self, tower: int) -> int:
        """Parameters that `tower` holds for this row."""
        return self.weights + (self.biases if tower == 0 or not self.bias_on_tower_0_only else 0)


class Row:
    """A row of a network table; each kind is a frozen dataclass of it, registered by `row_kind`.

    A kind with weights has a field `reads`; every other kind reads its own tower.
    """

    kind: ClassVar[str]  # the word that names it in a table
    dealt: ClassVar[str] = ""  # the field that counts what is dealt to the towers, `kernels` or `units`
    has_weights: ClassVar[bool] = False  # a product with learned weights, drawn from `std`
    one_tower_only: ClassVar[bool] = False
    in_branches: ClassVar[bool] = True  # may stand in a branch of `Branches`
    gives_new_memory: ClassVar[bool] = True  # only the next row needs its output, so that a ReLU may overwrite it
    scales_with_input: ClassVar[bool] = False  # twice the input gives twice the output
    follows: ClassVar[bool] = True  # a page tells it in the line of the layer before

    def cost(self, at: Place) -> RowCost:
        """Shape and cost at this place. Raises ConfigurationError if it cannot stand there."""
        return RowCost(at.name, self.kind, reads_of(self), at.inputs, at.inputs)

    def costs(self, at: Place) -> list[RowCost]:
        """The cost of every row inside of this one, and of itself last; of an ordinary row its own alone."""
        return [self.cost(at)]

    def within(self, name: str) -> "dict[str, Row]":
        """The rows that compute something by their full names, in order: this row, called `name`, or those inside."""
        return {name: self}

    def with_rows(self, change: "Callable[[str, Row], Row]", name: str) -> "Row":
        """This row, or one with other rows inside: each is replaced by `change(full name, row)`."""
        return change(name, self)

    def in_words(self) -> str:
        """The row for a page; kernels and units are of one tower."""
        numbers = [f"{key} {value:g}" for key, value in vars(self).items() if isinstance(value, int | float)]
        return f"{self.kind} {', '.join(numbers)}".strip()

    def to_mapping(self) -> dict[str, Any]:
        """The row as plain values that `parse_row` reads back."""
        return {"kind": self.kind, **{each.name: _plain(getattr(self, each.name)) for each in fields(self)}}  # type: ignore[arg-type]

    @classmethod
    def parse_inside(cls, mapping: Mapping[str, Any], where: str) -> dict[str, object]:
        """The fields that hold rows, parsed; `mapping` is this row's."""
        return {}


KINDS: dict[str, type[Row]] = {}

Kind = TypeVar("Kind", bound=type[Row])


def row_kind(word: str) -> Callable[[Kind], Kind]:
    """Register a kind of row under the word that names it in a table."""

    def register(cls: Kind) -> Kind:
        cls.kind = word
        KINDS[word] = cls
        return cls

    return register


def reads_of(row: Row) -> Reads:
    """What a row reads; a row that does not say reads its own tower."""
    reads: Reads = getattr(row, "reads", "own")
    return reads


def walk(layers: Mapping[str, Row], at: Place) -> list[RowCost]:
    """The costs of rows that follow one another, the first of them at this place.

    `at.name` stands in front of their names, if it is not empty.
    """
    found: list[RowCost] = []
    inputs = at.inputs
    for name, row in layers.items():
        costs = row.costs(replace(at, name=f"{at.name}_{name}" if at.name else name, inputs=inputs))
        found += costs
        if not costs[-1].training_only:
            inputs = costs[-1].output_shape
    return found


def parse_row(where: str, mapping: object) -> Row:
    """A row from plain values. Raises ConfigurationError that names the key."""
    if not isinstance(mapping, Mapping) or "kind" not in mapping:
        raise ConfigurationError(f"{where} must be a mapping with the key 'kind', one of {', '.join(KINDS)}")
    cls = KINDS[choice(mapping["kind"], KINDS, f"{where}.kind")]
    values = {key: value for key, value in mapping.items() if key != "kind"}
    return from_mapping(cls, values, where, cls.parse_inside(values, where))


def parse_layers(where: str, mapping: object) -> dict[str, Row]:
    """Rows by name that stand inside of another row. Raises ConfigurationError that names the key."""
    layers = {}
    for name, value in present(where, mapping).items():
        row = parse_row(f"{where}.{name}", value)
        if row.within("") != {"": row}:
            raise ConfigurationError(f"{where}.{name} is {row.kind}, which cannot be inside of another row")
        layers[name] = row
    return layers


def present(where: str, mapping: object) -> dict[str, Any]:
    """The entries of a mapping by name, without those set to null.

    So an ablation is one line: network.layers.lrn1=null.
    """
    if not isinstance(mapping, Mapping):
        raise ConfigurationError(f"{where} must be a mapping by name, not {mapping!r}")
    return {str(name): value for name, value in mapping.items() if value is not None}


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
