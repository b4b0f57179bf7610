"""WebDataset tars, as timm's ImageNet: KEY.jpg beside KEY.cls or KEY.json, the split in the name of the tar."""

import json
import re
from pathlib import Path
from typing import Any

from alexnet_mp.data.prepare.listing import IMAGE_SUFFIXES, Listing
from alexnet_mp.data.prepare.sources.source import Keyed, Sight, Source
from alexnet_mp.data.prepare.tree import Tree, open_tree
from alexnet_mp.errors import ConfigurationError, explained

_FIELDS = ("cls", "label", "class", "wnid")  # of a json
_WNID = re.compile(r"^n\d{8}(?=_)")


def _labeled(names: list[str]) -> bool:
    return any(name.endswith((".cls", ".json")) for name in names)


def _list(sight: Sight) -> Listing:
    pictures: dict[str, Keyed] = {}
    tars, left_out = sight.labeled_tars(_labeled)
    for path, split in tars.items():
        pictures.setdefault(split, []).extend(_pictures(open_tree(path, sight.scratch), split))
    keys = {key for key, _ in pictures.get("train", ())}
    if not keys or not all(key.isdigit() for key in keys):
        return sight.listing("webdataset", pictures, left_out=left_out)
    names = _names([str(number) for number in range(max(map(int, keys)) + 1)], pictures["train"], sight.path)
    named = {split: [(names.get(key, key), p) for key, p in keyed] for split, keyed in pictures.items()}
    return sight.listing("webdataset", named, list(names.values()), left_out)


def _pictures(tree: Tree, split: str) -> Keyed:
    """The pictures of a tar with the key of their class."""
    samples: dict[str, dict[str, str]] = {}
    for name in tree.files:
        folder, slash, last = name.rpartition("/")
        key, _, suffix = last.partition(".")
        kind = "picture" if suffix.lower() in IMAGE_SUFFIXES else suffix.lower()
        sample = samples.setdefault(folder + slash + key, {}) if kind in ("picture", "cls", "json") else {}
        if kind in sample:
            raise ConfigurationError(f"{tree.path}: {name!r} is the second {kind} of its sample")
        sample[kind] = name
    keyed = []
    for key, sample in samples.items():
        label = sample.get("cls") or sample.get("json")
        if label is None or "picture" not in sample:
            lacks = "picture" if label else "label (.cls or .json)"
            raise ConfigurationError(f"{tree.path}: the sample {key!r} has no {lacks}")
        keyed.append((_class_key(tree, label), tree.picture(sample["picture"], f"{split}/{tree.path.name}/")))
    return keyed


def _class_key(tree: Tree, name: str) -> str:
    text = tree.text(name).strip()
    if name.endswith(".json"):
        with explained(f"{tree.path}: {name!r} is not JSON", ValueError, RecursionError):
            said: Any = json.loads(text)
        text = next((str(said[each]) for each in _FIELDS if each in said), "") if isinstance(said, dict) else ""
    if len(text.split()) != 1 or (text.isdigit() and len(text) > 6):
        raise ConfigurationError(f"{tree.path}: {name!r} does not say one class: {text[:60]!r}")
    return str(int(text)) if text.isdigit() else text


def _names(keys: list[str], train: Keyed, path: Path) -> dict[str, str]:
    """What numbers of classes are called: the wnids with which the names of their training pictures begin, if all do.

    Raises ConfigurationError if those contradict the numbers.
    """
    pairs = {(key, "".join(_WNID.findall(picture.name.rpartition("/")[2])[:1])) for key, picture in train}
    if any(not wnid for _, wnid in pairs):
        return {key: key for key in keys}
    names, numbers = dict(sorted(pairs)), {wnid: key for key, wnid in sorted(pairs)}
    for key, wnid in sorted(pairs):
        if (names[key], numbers[wnid]) != (wnid, key):
            raise ConfigurationError(
                f"source={path}: a training picture of {wnid} is labeled {key}, and others are not"
            )
    return {key: names.get(key, key) for key in keys}


WEBDATASET = Source(
    "webdataset",
    "tars ...-train-0000.tar of KEY.jpg beside KEY.cls or KEY.json",
    lambda sight: any(map(_labeled, sight.tars.values())),
    _list,
)
