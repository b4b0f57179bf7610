"""Reads a network table from YAML, or from Hydra's composition of one, into a frozen `Network`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet_mp.common.presets import read_preset
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.check import check_one_tower, check_order, in_place
from alexnet_mp.network.rows import Auxiliary, Place, Row, parse_row, plain_rows, reads_of, walk
from alexnet_mp.network.rows.base import present


@dataclasses.dataclass(frozen=True)
class Network:
    """One network: its towers, its input and its rows in the order in which an image meets them.

    `image` is (channels, height, width); `rows` maps a layer's name to its row; counts in rows are per tower.
    """

    name: str
    towers: int
    image: tuple[int, int, int]
    classes: int
    rows: dict[str, Row]

    @staticmethod
    def parse(mapping: object) -> "Network":
        """`parse_network`, as `common.schema` calls it for a field of settings."""
        return parse_network(mapping)

    @property
    def layer_rows(self) -> dict[str, Row]:
        """Every row that computes something, by its full name and in order, those in branches too."""
        return {full: each for name, row in self.rows.items() for full, each in row.within(name).items()}

    @property
    def learned_layers(self) -> list[str]:
        """Names of the rows with parameters to learn, in order; the classifier is the last."""
        costs = walk(self.rows, Place("", self.image, self.towers, self.classes))
        return [cost.name for cost in costs if cost.parameters_of_a_tower]

    @property
    def first_layer(self) -> str:
        """The name of the row with weights that reads the image; of a network without hidden layers, the classifier."""
        reading = (name for name, row in self.rows.items() if reads_of(row) == "image")
        return next(reading, self.learned_layers[-1])

    def without_auxiliaries(self) -> "Network":
        """The network that is evaluated: without the classifiers that take part in training alone."""
        rows = {name: row for name, row in self.rows.items() if not isinstance(row, Auxiliary)}
        return dataclasses.replace(self, rows=rows)

    def cut_into(self, towers: int) -> "Network":
        """The same kernels and units dealt to another number of towers.

        A layer that reads only its own tower then reads fewer maps, so the cut network is another network.
        Raises ConfigurationError if `towers` does not divide a row's total, and for rows of one tower only.
        """
        if towers < 1:
            raise ConfigurationError(f"towers={towers}: a network needs at least one tower")
        check_one_tower(self.name, towers, self.rows)
        rows = {
            name: row.with_rows(lambda full, each: self._dealt(full, each, towers), name)
            for name, row in self.rows.items()
        }
        return dataclasses.replace(self, towers=towers, rows=rows)

    def _dealt(self, name: str, row: Row, towers: int) -> Row:
        if not row.dealt:
            return row
        total = getattr(row, row.dealt) * self.towers
        if total % towers:
            totals = [getattr(each, each.dealt) * self.towers for each in self.layer_rows.values() if each.dealt]
            possible = [n for n in range(1, 17) if not any(t % n for t in totals)]
            raise ConfigurationError(
                f"network {self.name}: {towers} towers do not divide the {total} {row.dealt} of {name}; "
                f"choose towers from {possible} or change the table"
            )
        return dataclasses.replace(row, **{row.dealt: total // towers})  # type: ignore[type-var]

    def to_mapping(self) -> dict[str, Any]:
        """The table as plain values that `parse_network` reads back, for checkpoints and `config.yaml`."""
        return {
            "name": self.name,
            "towers": self.towers,
            "image": list(self.image),
            "classes": self.classes,
            "layers": plain_rows(self.rows),
        }


@dataclasses.dataclass(frozen=True)
class _Header:
    name: str
    towers: int
    image: tuple[int, int, int]
    classes: int


def load_network(name_or_path: str | Path, towers: int | None = None) -> Network:
    """Read a network table: the name of a preset (`paper`, `small`, ...) or the path of a YAML file.

    `towers` cuts the same kernels and units into another number of towers. Raises ConfigurationError for an unknown
    preset, a file that is not a table, and a number of towers that does not divide the units.
    """
    network = parse_network(read_preset("network", name_or_path, "network", "network table"))
    return network if towers is None else network.cut_into(towers)


def parse_network(mapping: object) -> Network:
    """Check a table given as plain values and return it.

    Raises ConfigurationError that names row and key, for a row that cannot stand where it does too.
    """
    if not isinstance(mapping, Mapping) or not isinstance(mapping.get("layers"), Mapping):
        raise ConfigurationError("network must be a mapping with the key 'layers', itself a mapping of rows by name")
    header = from_mapping(_Header, {k: v for k, v in mapping.items() if k != "layers"}, "network")
    if header.towers < 1 or header.classes < 1 or min(header.image) < 1:
        raise ConfigurationError(
            f"network {header.name}: towers, classes and image must be positive, "
            f"not {header.towers}, {header.classes} and {list(header.image)}"
        )
    layers = present("network.layers", in_place(mapping["layers"]))
    rows = {name: parse_row(f"network.layers.{name}", value) for name, value in layers.items()}
    check_one_tower(header.name, header.towers, rows)
    check_order(header.name, rows)
    walk(rows, Place("", header.image, header.towers, header.classes))  # every window fits
    return Network(header.name, header.towers, header.image, header.classes, rows)
