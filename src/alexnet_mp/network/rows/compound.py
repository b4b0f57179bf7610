"""Rows that hold rows: branches that are joined again, and auxiliary classifiers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from alexnet_mp.common.text import count
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.rows.base import NOT_NEGATIVE, Place, Row, RowCost, parse_layers, present, row_kind, walk


@row_kind("branches")
@dataclass(frozen=True)
class Branches(Row):
    """Runs of rows that all begin with this row's input, and whose outputs are concatenated over the maps (Inception).

    `branches` maps a branch's name to its rows by name, all reading their own tower. A row's full name has that of
    this row and of its branch in front, `inception3a_3x3_reduce`; so it is called in recipes and checkpoints.
    """

    branches: dict[str, dict[str, Row]]

    follows = False

    def costs(self, at: Place) -> list[RowCost]:
        inside = [walk(layers, replace(at, name=f"{at.name}_{name}")) for name, layers in self.branches.items()]
        shapes = [branch[-1].output_shape for branch in inside]
        if len({shape[1:] for shape in shapes}) > 1:
            raise ConfigurationError(
                f"{at.name}: its branches end in maps of different sizes, {', '.join(map(str, shapes))}; "
                "change pad or stride"
            )
        joined = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        whole = RowCost(at.name, self.kind, "own", joined, joined)  # a copy of what comes out of them
        return [*(cost for branch in inside for cost in branch), whole]

    def within(self, name: str) -> dict[str, Row]:
        inside = ((f"{name}_{branch}", layers) for branch, layers in self.branches.items())
        return {f"{before}_{layer}": each for before, layers in inside for layer, each in layers.items()}

    def with_rows(self, change: Callable[[str, Row], Row], name: str) -> Row:
        return Branches(
            {
                branch: {layer: change(f"{name}_{branch}_{layer}", row) for layer, row in layers.items()}
                for branch, layers in self.branches.items()
            }
        )

    def in_words(self) -> str:
        return f"{count(len(self.branches), 'branch', 'es')}, joined"

    def to_mapping(self) -> dict[str, Any]:
        return {"kind": self.kind, "branches": {name: plain_rows(layers) for name, layers in self.branches.items()}}

    @classmethod
    def parse_inside(cls, mapping: Mapping[str, Any], where: str) -> dict[str, object]:
        if "branches" not in mapping:
            return {}
        named = present(f"{where}.branches", mapping["branches"])
        return {"branches": {name: parse_layers(f"{where}.branches.{name}", each) for name, each in named.items()}}


@row_kind("auxiliary")
@dataclass(frozen=True)
class Auxiliary(Row):
    """A classifier of its own on the activations at this place, which pass on as they are (GoogLeNet, arXiv 1409.4842).

    It takes part in training alone: `loss_weight` times its cross-entropy is added to the loss. `layers` are its rows;
    the last one is a `classifier` of the network's classes. A row's full name has that of this row in front,
    `aux4a_fc`. In networks of one tower only.
    """

    loss_weight: Annotated[float, NOT_NEGATIVE]
    layers: dict[str, Row]

    one_tower_only = True
    gives_new_memory = False
    follows = False

    def costs(self, at: Place) -> list[RowCost]:
        return [replace(cost, training_only=True) for cost in walk(self.layers, at)]

    def within(self, name: str) -> dict[str, Row]:
        return {f"{name}_{layer}": each for layer, each in self.layers.items()}

    def with_rows(self, change: Callable[[str, Row], Row], name: str) -> Row:
        return self

    def in_words(self) -> str:
        return f"classifier in training alone, {self.loss_weight:g} of its loss counts"

    def to_mapping(self) -> dict[str, Any]:
        return {"kind": self.kind, "loss_weight": self.loss_weight, "layers": plain_rows(self.layers)}

    @classmethod
    def parse_inside(cls, mapping: Mapping[str, Any], where: str) -> dict[str, object]:
        return {"layers": parse_layers(f"{where}.layers", mapping["layers"])} if "layers" in mapping else {}


def plain_rows(rows: Mapping[str, Row]) -> dict[str, Any]:
    """Rows as plain values, by name."""
    return {name: row.to_mapping() for name, row in rows.items()}
