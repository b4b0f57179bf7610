"""Hugging Face's tars of ImageNet, compressed or not: the last part of every file name is the wnid of its class."""

import re
from pathlib import PurePosixPath

from alexnet_mp.data.prepare.listing import IMAGE_SUFFIXES, Listing, Picture
from alexnet_mp.data.prepare.sources.source import Keyed, Sight, Source
from alexnet_mp.data.prepare.tree import tar_files
from alexnet_mp.errors import ConfigurationError, explained

_NAME = re.compile(rf"(?:(n\d{{8}})_)?.*_(n\d{{8}})\.(?:{'|'.join(IMAGE_SUFFIXES)})", re.IGNORECASE)


def _labeled(names: list[str]) -> bool:
    return any(_NAME.fullmatch(PurePosixPath(name).name) for name in names)


def _list(sight: Sight) -> Listing:
    pictures: dict[str, Keyed] = {}
    tars, left_out = sight.labeled_tars(_labeled)
    for path, split in tars.items():
        with explained(f"cannot read {path}"):
            for name, extent in tar_files(path, sight.scratch):
                match = _NAME.fullmatch(PurePosixPath(name).name)
                if not match:
                    raise ConfigurationError(f"{path}: {name!r} does not end with a wnid, as NAME_n01440764.JPEG")
                if match[1] not in (None, match[2]):
                    raise ConfigurationError(f"{path}: {name!r} names two classes, {match[1]} and {match[2]}")
                pictures.setdefault(split, []).append((match[2], Picture(f"{split}/{name}", 0, extent)))
    return sight.listing("hugging_face", pictures, left_out=left_out)


HUGGING_FACE = Source(
    "hugging_face",
    "tars train_... and val_... of NAME_WNID.JPEG",
    lambda sight: any(map(_labeled, sight.tars.values())),
    _list,
)
