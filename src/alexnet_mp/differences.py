"""In which values two nested mappings differ, in words."""

from collections.abc import Iterator, Mapping
from typing import Any


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
