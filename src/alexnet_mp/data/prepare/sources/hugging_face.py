"""Hugging Face's tars of ImageNet, compressed or not: the last part of every file name is the wnid of its class."""

import re
from pathlib import Path, PurePosixPath

from alexnet_mp.data.prepare.listing import IMAGE_SUFFIXES, Listing, Picture, in_order
from alexnet_mp.data.prepare.sources.source import Sight, Source, split_in_name
from alexnet_mp.data.prepare.sources.words import class_words
from alexnet_mp.data.prepare.tree import tar_files
from alexnet_mp.errors import ConfigurationError, explained

_NAME = re.compile(rf"(?:(n\d{{8}})_)?.*_(n\d{{8}})\.(?:{'|'.join(IMAGE_SUFFIXES)})", re.IGNORECASE)


def _labeled(names: list[str]) -> bool:
    return any(_NAME.fullmatch(PurePosixPath(name).name) for name in names)


def _recognizes(sight: Sight) -> bool:
    return any(map(_labeled, sight.tars.values()))


def _list(sight: Sight) -> Listing:
    named: dict[str, list[tuple[str, Picture]]] = {}  # by split, with the wnid; labels follow once all are known
    left_out = []
    for path, first in sorted(sight.tars.items()):
        split = split_in_name(path)
        if _labeled(first):
            named.setdefault(split, []).extend(_pictures(path, split, sight))
        else:
            left_out.append(f"{path.name} (its pictures have no labels)" if first else f"{path.name} (it is empty)")
    if "train" not in named:
        raise ConfigurationError(f"source={sight.path} has no tar of training pictures, such as train_images_0.tar.gz")
    class_names = tuple(sorted({wnid for wnid, _ in named["train"]}))
    labels = {wnid: label for label, wnid in enumerate(class_names)}
    for split, pairs in named.items():
        strange = next(((wnid, picture) for wnid, picture in pairs if wnid not in labels), None)
        if strange:
            raise ConfigurationError(
                f"{split}: {strange[1].name} is of {strange[0]}, a class without training pictures"
            )
    splits = {split: in_order([p._replace(label=labels[wnid]) for wnid, p in named[split]]) for split in named}
    words = {} if sight.path.is_file() else class_words(sight.tree, class_names)
    return Listing("hugging_face", "image", class_names, splits, class_words=words, left_out=tuple(left_out))


def _pictures(path: Path, split: str, sight: Sight) -> list[tuple[str, Picture]]:
    found = []
    with explained(f"cannot read {path}"):
        for name, extent in tar_files(path, sight.scratch):
            match = _NAME.fullmatch(PurePosixPath(name).name)
            if not match:
                raise ConfigurationError(
                    f"{path}: {name!r} does not end with a wnid, as n01440764_10026_n01440764.JPEG"
                )
            if match[1] not in (None, match[2]):
                raise ConfigurationError(f"{path}: {name!r} names two classes, {match[1]} and {match[2]}")
            found.append((match[2], Picture(f"{split}/{name}", 0, *extent)))
    return found


HUGGING_FACE = Source("hugging_face", "tars train_... and val_... of NAME_WNID.JPEG", _recognizes, _list)
