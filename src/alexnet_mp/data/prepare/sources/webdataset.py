"""WebDataset tars, as timm's ImageNet: KEY.jpg beside KEY.cls or KEY.json, the split in the name of the tar."""

import json
import re
from pathlib import Path
from typing import Any

from alexnet_mp.data.prepare.listing import IMAGE_SUFFIXES, Listing, Picture, in_order
from alexnet_mp.data.prepare.sources.source import Sight, Source, split_in_name
from alexnet_mp.data.prepare.sources.words import class_words
from alexnet_mp.data.prepare.tree import LARGEST_TEXT, Extent, tar_files
from alexnet_mp.errors import ConfigurationError, explained

_LABELS = ("cls", "json")
_FIELDS = ("cls", "label", "class", "wnid")  # of a json
_WNID = re.compile(r"n\d{8}(?=_)")
_LISTS = ("LOC_synset_mapping.txt", "synset_words.txt", "wnids.txt")  # the classes' keys in their order


def _recognizes(sight: Sight) -> bool:
    return any(name.endswith((".cls", ".json")) for names in sight.tars.values() for name in names)


def _list(sight: Sight) -> Listing:
    found: dict[str, list[tuple[str, Picture]]] = {}
    left_out = []
    for path in sorted(sight.tars):
        split = split_in_name(path)
        pairs = _pictures(path, split, sight)
        if pairs:
            found.setdefault(split, []).extend(pairs)
        else:
            left_out.append(f"{path.name} (it has no pictures with labels)")
    if "train" not in found:
        raise ConfigurationError(f"source={sight.path} has no tar of training pictures, such as train-0000.tar")
    keys = _keys(sight, {key for key, _ in found["train"]})
    labels = {key: label for label, key in enumerate(keys)}
    for split, pairs in found.items():
        strange = next(((key, picture) for key, picture in pairs if key not in labels), None)
        if strange:
            raise ConfigurationError(
                f"{split}: {strange[1].name} is of {strange[0]}, a class without training pictures"
            )
    splits = {split: in_order([p._replace(label=labels[key]) for key, p in found[split]]) for split in found}
    class_names = _names(sight, keys, found["train"])
    words = {} if sight.path.is_file() else class_words(sight.tree, class_names)
    return Listing("webdataset", "image", class_names, splits, class_words=words, left_out=tuple(left_out))


def _pictures(path: Path, split: str, sight: Sight) -> list[tuple[str, Picture]]:
    """The pictures of a tar with the key of their class; none if the tar has no labels at all."""
    samples: dict[str, dict[str, tuple[str, Extent]]] = {}
    with explained(f"cannot read {path}"):
        for name, extent in tar_files(path, sight.scratch):
            folder, slash, last = name.rpartition("/")
            key, _, suffix = last.partition(".")
            kind = "picture" if suffix.lower() in IMAGE_SUFFIXES else suffix.lower()
            if kind not in ("picture", *_LABELS):
                continue
            sample = samples.setdefault(f"{folder}{slash}{key}", {})
            if kind in sample:
                raise ConfigurationError(f"{path}: {name!r} is the second {kind} of its sample")
            sample[kind] = name, extent
        if not any(sample.keys() & set(_LABELS) for sample in samples.values()):
            return []
        pairs = []
        for sample_key, sample in samples.items():
            label = sample.get("cls") or sample.get("json")
            if label is None or "picture" not in sample:
                lacks = "label (.cls or .json)" if label is None else "picture"
                raise ConfigurationError(f"{path}: the sample {sample_key!r} has no {lacks}")
            name, extent = sample["picture"]
            pairs.append((_class_key(path, *label), Picture(f"{split}/{path.name}/{name}", 0, *extent)))
    return pairs


def _class_key(path: Path, name: str, extent: Extent) -> str:
    if extent.length > LARGEST_TEXT:
        raise ConfigurationError(f"{path}: {name!r} has {extent.length:,} bytes, too many for a label; refused")
    with Path(extent.path).open("rb") as file:
        file.seek(extent.offset)
        text = file.read(extent.length).decode("utf-8", "replace").strip()
    if name.endswith(".json"):
        with explained(f"{path}: {name!r} is not JSON", ValueError, RecursionError):
            said: Any = json.loads(text)
        fields = [str(said[field]) for field in _FIELDS if field in said] if isinstance(said, dict) else []
        text = fields[0] if fields else ""
    if not text or len(text.split()) > 1:
        raise ConfigurationError(f"{path}: {name!r} does not say one class: {text[:60]!r}")
    return str(int(text)) if text.isdigit() and len(text) < 9 else text


def _keys(sight: Sight, keys: set[str]) -> list[str]:
    """The classes in order: numbers from 0 without a gap, or words."""
    if not all(key.isdigit() for key in keys):
        return sorted(keys)
    numbers = sorted(map(int, keys))
    missing = next((i for i, number in enumerate(numbers) if i != number), None)
    if missing is not None:
        raise ConfigurationError(
            f"source={sight.path}: class {missing} has no training pictures; the last is {numbers[-1]}"
        )
    return [str(number) for number in numbers]


def _names(sight: Sight, keys: list[str], train: list[tuple[str, Picture]]) -> tuple[str, ...]:
    """What the classes are called: by a list in the source, or the wnids with which all their pictures' names begin."""
    listed = None if sight.path.is_file() else sight.tree.find(*_LISTS)
    if keys[0].isdigit() and listed is not None:
        lines = [line.split()[0] for line in sight.tree.text(listed).splitlines() if line.strip()]
        if len(set(lines)) != len(keys):
            raise ConfigurationError(f"source={sight.path}: {listed} has {len(set(lines))} classes, not {len(keys)}")
        return tuple(lines)
    wnids: dict[str, set[str]] = {}
    for key, picture in train:
        match = _WNID.match(picture.name.rpartition("/")[2])
        wnids.setdefault(key, set()).add(match[0] if match else "")
    one = [next(iter(wnids[key])) for key in keys if len(wnids[key]) == 1]
    return tuple(one if len(set(one)) == len(keys) and "" not in one else keys)


WEBDATASET = Source("webdataset", "tars ...-train-0000.tar of KEY.jpg beside KEY.cls or KEY.json", _recognizes, _list)
