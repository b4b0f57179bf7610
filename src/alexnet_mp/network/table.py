"""The network table: a YAML file, or Hydra's composition of one, becomes a frozen `Network`."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from alexnet_mp.common.presets import preset_names, preset_path
from alexnet_mp.common.schema import choice, from_mapping
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.check import check_one_tower, check_order, in_place
from alexnet_mp.network.rows import (
    KINDS,
    Auxiliary,
    Branches,
    ConvolutionRow,
    FullyConnected,
    LayerRow,
    LearnedRow,
    LocalResponseNorm,
    PoolingRow,
    Row,
    SpatialNorm,
    kind_of,
    reads_of,
    rows_within,
)


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
    def layer_rows(self) -> dict[str, LayerRow]:
        """Every row that computes something, by its full name and in order, those in branches too."""
        return {full: each for name, row in self.rows.items() for full, each in rows_within(name, row).items()}

    @property
    def learned_layers(self) -> list[str]:
        """Names of the rows with parameters to learn, in order; the classifier is the last."""
        return [name for name, row in self.layer_rows.items() if isinstance(row, LearnedRow)]

    @property
    def first_layer(self) -> str:
        """The name of the row with weights that reads the image; of a network without hidden layers, the classifier."""
        reading = (name for name, row in self.rows.items() if reads_of(row) == "image")
        return next(reading, self.learned_layers[-1])

    def without_auxiliaries(self) -> "Network":
        """The network that is evaluated: without the classifiers that take part in training alone."""
        rows: dict[str, Row] = {name: row for name, row in self.rows.items() if not isinstance(row, Auxiliary)}
        return dataclasses.replace(self, rows=rows)

    def cut_into(self, towers: int) -> "Network":
        """The same kernels and units dealt to another number of towers.

        A layer that reads only its own tower then reads fewer maps, so the cut network is another network.
        Raises ConfigurationError where `towers` does not divide a row's total, and for rows of one tower only.
        """
        if towers < 1:
            raise ConfigurationError(f"towers={towers}: a network needs at least one tower")
        check_one_tower(self.name, towers, self.rows)
        rows: dict[str, Row] = {name: self._cut_row(name, row, towers) for name, row in self.rows.items()}
        return dataclasses.replace(self, towers=towers, rows=rows)

    def _cut_row(self, name: str, row: Row, towers: int) -> Row:
        if isinstance(row, Branches):
            return Branches(
                {
                    branch: {each: self._cut_layer(f"{name}_{branch}_{each}", layers[each], towers) for each in layers}
                    for branch, layers in row.branches.items()
                }
            )
        return row if isinstance(row, Auxiliary) else self._cut_layer(name, row, towers)

    def _cut_layer(self, name: str, row: LayerRow, towers: int) -> LayerRow:
        if not isinstance(row, ConvolutionRow | FullyConnected):
            return row
        field = "kernels" if isinstance(row, ConvolutionRow) else "units"
        total = getattr(row, field) * self.towers
        if total % towers:
            possible = [n for n in range(1, 17) if not any(t % n for t in self._totals())]
            raise ConfigurationError(
                f"network {self.name}: {towers} towers do not divide the {total} {field} of {name}; "
                f"choose towers from {possible} or change the table"
            )
        return dataclasses.replace(row, **{field: total // towers})

    def _totals(self) -> list[int]:
        counts = [getattr(row, "kernels", 0) + getattr(row, "units", 0) for row in self.layer_rows.values()]
        return [count * self.towers for count in counts if count]

    def to_mapping(self) -> dict[str, Any]:
        """The table as plain values that `parse_network` reads back, for checkpoints and `config.yaml`."""
        return {
            "name": self.name,
            "towers": self.towers,
            "image": list(self.image),
            "classes": self.classes,
            "layers": _layers_as_mapping(self.rows),
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
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = preset_path("network", choice(str(name_or_path), preset_names("network"), "network"))
    try:
        mapping = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, OmegaConfBaseException, YAMLError) as error:
        raise ConfigurationError(f"cannot read the network table {path}: {' '.join(str(error).split())}") from error
    network = parse_network(mapping)
    return network if towers is None else network.cut_into(towers)


def parse_network(mapping: object) -> Network:
    """Check a table given as plain values and return it; raises ConfigurationError that names row and key."""
    if not isinstance(mapping, Mapping) or not isinstance(mapping.get("layers"), Mapping):
        raise ConfigurationError("network must be a mapping with the key 'layers', itself a mapping of rows by name")
    header = from_mapping(_Header, {k: v for k, v in mapping.items() if k != "layers"}, "network")
    if header.towers < 1 or header.classes < 1 or min(header.image) < 1:
        raise ConfigurationError(
            f"network {header.name}: towers, classes and image must be positive, "
            f"not {header.towers}, {header.classes} and {list(header.image)}"
        )
    rows = {name: _parse_row(where, row) for name, where, row in _named("network.layers", in_place(mapping["layers"]))}
    check_one_tower(header.name, header.towers, rows)
    check_order(header.name, rows)
    return Network(header.name, header.towers, header.image, header.classes, rows)


def _named(where: str, mapping: object) -> Iterator[tuple[str, str, object]]:
    """Name, path and value of each entry. One set to null is left out, so that an ablation is one line:
    network.layers.lrn1=null."""
    if not isinstance(mapping, Mapping):
        raise ConfigurationError(f"{where} must be a mapping by name, not {mapping!r}")
    return ((str(name), f"{where}.{name}", value) for name, value in mapping.items() if value is not None)


def _parse_row(where: str, mapping: object) -> Row:
    if not isinstance(mapping, Mapping) or "kind" not in mapping:
        raise ConfigurationError(f"{where} must be a mapping with the key 'kind', one of {', '.join(KINDS)}")
    kind = KINDS[choice(mapping["kind"], KINDS, f"{where}.kind")]
    ready: dict[str, object] = {}
    if kind is Branches and "branches" in mapping:
        inside = _named(f"{where}.branches", mapping["branches"])
        ready["branches"] = {name: _parse_layers(path, layers) for name, path, layers in inside}
    elif kind is Auxiliary and "layers" in mapping:
        ready["layers"] = _parse_layers(f"{where}.layers", mapping["layers"])
    row = from_mapping(kind, {k: v for k, v in mapping.items() if k != "kind"}, where, ready)
    for field in dataclasses.fields(row):
        problem = _problem(row, field.name, getattr(row, field.name))
        if problem:
            raise ConfigurationError(f"{where}.{field.name} is {getattr(row, field.name)}, must {problem}")
    return row


def _parse_layers(where: str, mapping: object) -> dict[str, LayerRow]:
    layers: dict[str, LayerRow] = {}
    for name, path, value in _named(where, mapping):
        row = _parse_row(path, value)
        if isinstance(row, Branches | Auxiliary):
            raise ConfigurationError(f"{path} is {kind_of(row)}, which cannot be inside of another row")
        layers[name] = row
    return layers


def _problem(row: Row, field: str, value: Any) -> str:
    """What a value of a row must be and is not, or nothing."""
    if field in ("kernels", "units", "size", "stride", "n") and value < 1:
        return "be at least 1"
    if field in ("n", "size") and isinstance(row, LocalResponseNorm | SpatialNorm) and value % 2 == 0:
        return "be odd, so that the window has a middle"
    if field == "momentum" and not 0 < value <= 1:
        return "be more than 0 and at most 1"
    if field == "epsilon" and value <= 0:
        return "be positive"
    if field == "p" and not 0 <= value < 1:
        return "be at least 0 and less than 1"
    if (field in ("std", "loss_weight") and value != "he" and value < 0) or (field == "pad" and min(value) < 0):
        return "not be negative"
    if field == "pad" and isinstance(row, PoolingRow) and max(value) >= row.size:
        return f"be less than size, {row.size}, so that every window has something inside"
    return ""


def _layers_as_mapping(rows: Mapping[str, Row]) -> dict[str, Any]:
    return {name: _row_as_mapping(row) for name, row in rows.items()}


def _row_as_mapping(row: Row) -> dict[str, Any]:
    match row:
        case Branches():
            inside = {name: _layers_as_mapping(layers) for name, layers in row.branches.items()}
            return {"kind": kind_of(row), "branches": inside}
        case Auxiliary():
            return {"kind": kind_of(row), "loss_weight": row.loss_weight, "layers": _layers_as_mapping(row.layers)}
        case _:
            return {"kind": kind_of(row), **_plain(dataclasses.asdict(row))}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
