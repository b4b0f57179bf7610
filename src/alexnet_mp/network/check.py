"""Checks the order of a table's rows: where each may stand, and what may follow what."""

import re
from collections.abc import Mapping
from typing import Any

from alexnet_mp.common.schema import choice
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.rows import Auxiliary, Branches, Classifier, Row, reads_of

_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)


def check_one_tower(network: str, towers: int, rows: Mapping[str, Row]) -> None:
    """Raise ConfigurationError for a row that only a network of one tower may have, if there are more."""
    alone = [f"{name} ({row.kind})" for name, row in rows.items() if row.one_tower_only]
    if towers > 1 and alone:
        raise ConfigurationError(
            f"network {network}: {', '.join(alone)} cannot be cut into {towers} towers; "
            "take towers=1, or set auxiliary classifiers to null"
        )


def check_order(network: str, rows: Mapping[str, Row]) -> None:
    """Raise ConfigurationError that names the row which cannot be where it is."""
    for name, row in rows.items():
        if isinstance(row, Branches):
            _check_branches(network, name, row)
        elif isinstance(row, Auxiliary):
            _check_classifier(network, row.layers, f"{name}.")
            _check_reading_own(network, name, row)
    _check_classifier(network, rows, "")
    _check_first(network, rows)
    _check_names(network, rows)


def _check_classifier(network: str, rows: Mapping[str, Row], before: str) -> None:
    classifiers = [name for name, row in rows.items() if isinstance(row, Classifier)]
    if not classifiers or not isinstance(list(rows.values())[-1], Classifier):
        of = f" of {before[:-1]}" if before else ""
        raise ConfigurationError(f"network {network}: the last row{of} must be the classifier, kind classifier")
    if len(classifiers) > 1:
        raise ConfigurationError(
            f"network {network}: {before}{classifiers[0]} is classifier, which must be the last row"
        )


def _check_first(network: str, rows: Mapping[str, Row]) -> None:
    weighted = [
        (name, row)
        for outer, outer_row in rows.items()
        for name, row in outer_row.within(outer).items()
        if hasattr(row, "reads")
    ]
    for index, (name, row) in enumerate(weighted):
        if (reads_of(row) == "image") != (index == 0):
            raise ConfigurationError(
                f"network {network}: {name} reads {reads_of(row)}; the first layer with weights reads image, "
                "every later one own or both"
            )


def _check_branches(network: str, name: str, row: Branches) -> None:
    if not row.branches or not all(row.branches.values()):
        raise ConfigurationError(f"network {network}: {name} needs at least one branch, and each a row")
    for full, each in row.within(name).items():
        if not each.in_branches:
            raise ConfigurationError(f"network {network}: {full} is {each.kind}, which cannot stand in a branch")
    _check_reading_own(network, name, row)


def _check_reading_own(network: str, name: str, row: Row) -> None:
    for full, each in row.within(name).items():
        if reads_of(each) != "own":
            raise ConfigurationError(
                f"network {network}: {full} reads {reads_of(each)}; a row inside of {name} reads own"
            )


def _check_names(network: str, rows: Mapping[str, Row]) -> None:
    names = set(rows)
    for outer, row in rows.items():
        for name in row.within(outer):
            if not _NAME.fullmatch(name):
                raise ConfigurationError(
                    f"network {network}: a row is called {name!r}; its name stands in those of parameters: letters, "
                    "digits and _, a letter first"
                )
            if name != outer and name in names:
                raise ConfigurationError(f"network {network}: two rows have the full name {name}; call one otherwise")
            names.add(name)


def in_place(layers: Mapping[Any, Any]) -> dict[Any, Any]:
    """A table's rows in their order: one that says `after: NAME` or `before: NAME` beside that one, the rest as given.

    So a preset of conf/ablation can put a row into another's table. Raises ConfigurationError for an unknown name.
    """
    placed = {name: row for name, row in layers.items() if not _side(row)}
    for name, row in layers.items():
        side = _side(row)
        if side:
            names = list(placed)
            beside = choice(row[side], names, f"network.layers.{name}.{side}")
            at = names.index(beside) + (side == "after")
            own = {key: value for key, value in row.items() if key != side}
            placed = {**{n: placed[n] for n in names[:at]}, name: own, **{n: placed[n] for n in names[at:]}}
    return placed


def _side(row: object) -> str | None:
    """On which side of another a row says that it stands."""
    return next((side for side in ("after", "before") if isinstance(row, Mapping) and side in row), None)
