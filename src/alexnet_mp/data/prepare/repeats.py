"""Finds pictures of the same bytes that are in two splits, which makes a test too easy, or under two labels."""

from collections.abc import Mapping, Sequence

from alexnet_mp.data.manifest import Repeated
from alexnet_mp.data.prepare.listing import Picture
from alexnet_mp.data.prepare.shards import ShardResult, ShardTask


def find_repeated(tasks: Sequence[ShardTask], results: Mapping[tuple[str, int], ShardResult]) -> tuple[Repeated, ...]:
    """The pictures of the shards that have equal digests, by name; equal ones of one split and label do no harm."""
    seen: set[str] = set()
    again: dict[str, list[tuple[str, Picture]]] = {}
    for result in results.values():
        for digest in filter(None, result.digests):
            if digest in seen:
                again[digest] = []
            seen.add(digest)
    for task in tasks if again else ():
        for digest, picture in zip(results[task.split, task.number].digests, task.pictures, strict=True):
            if digest in again:
                again[digest].append((task.split, picture))
    found = []
    for alike in again.values():
        splits, kinds = {split for split, _ in alike}, {picture.label for _, picture in alike}
        wrong = ["in two splits"] * (len(splits) > 1) + ["under two labels"] * (len(kinds) > 1)
        if wrong:
            found.append(Repeated(tuple(sorted(picture.name for _, picture in alike)), " and ".join(wrong)))
    return tuple(sorted(found, key=lambda each: each.names))
