"""Builds frozen dataclasses from YAML mappings; errors name the key that is wrong."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from alexnet_mp.errors import ConfigurationError

T = TypeVar("T")

_LARGEST = 1e9  # as a time-out 30 years; a timedelta takes 8.6e13 seconds


@dataclass(frozen=True)
class Bound:
    """What a value must hold to be one of a field `Annotated` with this; `must` says it, `be positive`."""

    must: str
    holds: Callable[[Any], bool]


_NOT_TOO_LARGE = Bound("be at most 1e9", lambda value: value <= _LARGEST)  # nor infinity, nor nan

PositiveInt = Annotated[int, Bound("be positive", lambda value: value > 0), _NOT_TOO_LARGE]
PositiveFloat = Annotated[float, Bound("be positive", lambda value: value > 0), _NOT_TOO_LARGE]
NonNegativeInt = Annotated[int, Bound("not be negative", lambda value: value >= 0), _NOT_TOO_LARGE]
NonNegativeFloat = Annotated[float, Bound("not be negative", lambda value: value >= 0), _NOT_TOO_LARGE]
OutputFile = Annotated[
    str, Bound("lie in a folder that exists", lambda path: Path(path).expanduser().absolute().parent.is_dir())
]


def from_mapping(cls: type[T], mapping: object, where: str, ready: Mapping[str, object] | None = None) -> T:
    """Build the dataclass `cls` from `mapping`; nested dataclasses, lists and optional values are followed.

    Checks of several fields belong in `__post_init__`; a class of a field may have a static method `parse` instead.

    `ready` has values of fields that the caller has parsed already; they take the place of what `mapping` says.
    `where` is the dotted path of the mapping in the configuration, for the messages.

    Raises ConfigurationError for a key that `cls` does not have, for a key that it needs and the mapping lacks, for a
    value of the wrong type, and for one outside of the `Bound`s that its field is annotated with.
    """
    if not isinstance(mapping, Mapping):
        raise ConfigurationError(f"{where or 'the configuration'} must be a mapping of keys, not {mapping!r}")
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, cls)) if field.init}
    for key in mapping:
        if key not in fields:
            near = suggestion(str(key), fields) or f"; known: {', '.join(fields)}"
            raise ConfigurationError(f"unknown key {_path(where, key)!r}{near}")
    hints = typing.get_type_hints(cls, include_extras=True)
    values: dict[str, object] = {}
    for name, field in fields.items():
        if ready and name in ready:
            values[name] = ready[name]
        elif name in mapping:
            values[name] = _convert(hints[name], mapping[name], _path(where, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigurationError(f"missing key {_path(where, name)!r}")
    return cls(**values)


def choice(value: object, choices: typing.Iterable[str], where: str) -> str:
    """Return `value` if it is one of `choices`; else raise ConfigurationError with the list and the nearest."""
    known = list(choices)
    if value not in known:
        raise ConfigurationError(is_not_one_of(value, known, where))
    return str(value)


def is_not_one_of(value: object, known: typing.Iterable[str], where: str) -> str:
    """The message for a value that is not one of the known ones."""
    words = list(known)
    return f"{where} is {value!r}, not one of {', '.join(words)}{suggestion(str(value), words)}"


def suggestion(key: str, known: typing.Iterable[str]) -> str:
    """`; did you mean ...?` with the known word that is nearest to `key`, or nothing."""
    near = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _convert(hint: Any, value: object, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _within(arguments[1:], _convert(arguments[0], value, where), where)
    if hasattr(hint, "parse"):  # a class that knows more of its plain values than the types of its fields
        return hint.parse(value)
    if dataclasses.is_dataclass(hint):
        return from_mapping(typing.cast(type, hint), value, where)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, where)
    if origin is typing.Literal:
        if not any(type(value) is type(known) and value == known for known in arguments):
            raise ConfigurationError(is_not_one_of(value, map(str, arguments), where))
        return value
    if origin is tuple and isinstance(value, list | tuple):
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise ConfigurationError(f"{where} needs {len(arguments)} values, not {len(value)}: {value!r}")
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_convert(kind, v, f"{where}[{i}]") for i, (kind, v) in enumerate(zip(kinds, value, strict=True)))
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _convert(arguments[1], v, _path(where, key)) for key, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Any or (hint in (int, float, str, bool) and type(value) is hint):
        return value
    raise ConfigurationError(f"{where} must be {_name(hint)}, not {value!r}")


def _within(bounds: tuple[Bound, ...], value: object, where: str) -> object:
    for bound in bounds:
        if not bound.holds(value):
            raise ConfigurationError(f"{where} is {value}, must {bound.must}")
    return value


def _convert_union(alternatives: tuple[Any, ...], value: object, where: str) -> Any:
    if value is None and type(None) in alternatives:
        return None
    others = [alternative for alternative in alternatives if alternative is not type(None)]
    for alternative in others:
        try:
            return _convert(alternative, value, where)
        except ConfigurationError:
            if len(others) == 1:
                raise
    raise ConfigurationError(f"{where} must be {' or '.join(map(_name, others))}, not {value!r}")


def _name(hint: Any) -> str:
    if typing.get_origin(hint) is Annotated:
        return _name(typing.get_args(hint)[0])
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(map(str, typing.get_args(hint)))
    words = {
        int: "a whole number",
        float: "a number",
        str: "text (in quotes where it looks like a number)",
        bool: "true or false",
    }
    containers = {tuple: "a list", dict: "a mapping of keys"}
    return words.get(hint, containers.get(typing.get_origin(hint), str(hint)))


def _path(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def differences(before: object, now: object, where: str) -> list[str]:
    """`key: before -> now` for every value in which two nested mappings differ."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return list(_different_keys(before, now, where))
    if isinstance(before, list | tuple) and isinstance(now, list | tuple) and list(before) == list(now):
        return []
    return [] if before == now else [f"{where} was {before!r} and is {now!r}"]


def _different_keys(before: Mapping[Any, Any], now: Mapping[Any, Any], where: str) -> Iterator[str]:
    for key in {**before, **now}:
        yield from differences(before.get(key), now.get(key), f"{where}.{key}" if where else str(key))
