"""Lists CIFAR-10's binary archive, downloaded and verified or a local file."""

from pathlib import Path, PurePosixPath

import numpy as np
import pooch  # type: ignore[import-untyped]

from alexnet_mp.data.prepare.listing import Extent, Listing, Picture, in_order
from alexnet_mp.data.prepare.sources.source import Sight, Source
from alexnet_mp.data.prepare.tree import Tree, open_tree
from alexnet_mp.errors import ConfigurationError, explained

DOWNLOAD = "cifar10"
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"

_PIXEL_BYTES = 3 * 32 * 32
_RECORD_BYTES = 1 + _PIXEL_BYTES  # the label comes first
_FILES = {"train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "test": ("test_batch.bin",)}
_NAMES = "batches.meta.txt"
_LARGEST = 1 << 30  # bytes; the real files have 30,730,000 each


def download() -> Path:
    """The archive in the user's cache folder, downloaded if it is not there; its SHA-256 is checked either way."""
    what = f"cannot download {URL}; download it elsewhere and give source=PATH"
    with explained(what, OSError, ValueError):  # requests' errors are OSErrors
        path = pooch.retrieve(
            URL, f"sha256:{SHA256}", fname=PurePosixPath(URL).name, path=pooch.os_cache("alexnet_mp"), progressbar=True
        )
    return Path(path)


def _recognizes(sight: Sight) -> bool:
    """The word, or an archive that is called so or begins with its files."""
    if not sight.path.exists():
        return True
    if not sight.path.is_file() or not sight.tars:
        return False
    first = {PurePosixPath(name).name for names in sight.tars.values() for name in names}
    return "cifar" in sight.path.name.lower() or bool(first & {_NAMES, *_FILES["train"]})


def _list(sight: Sight) -> Listing:
    return list_cifar10(sight.path if sight.path.exists() else download(), sight.scratch)


def list_cifar10(archive: Path, scratch: Path) -> Listing:
    """The pictures of the archive, which is inflated into the folder `scratch`.

    Raises ConfigurationError if the file is not such an archive, lacks a batch, or has a batch that is no whole
    number of records or has a label without a name.
    """
    tree = open_tree(archive, scratch, _LARGEST)
    names = {last: tree.find(last) or "" for last in (_NAMES, *_FILES["train"], *_FILES["test"])}
    for last, name in names.items():
        if not name:
            raise ConfigurationError(f"{archive} is not CIFAR-10's binary version: it has no {last}")
    class_names = tuple(tree.text(names[_NAMES]).split())
    if not class_names or len(set(class_names)) != len(class_names):
        raise ConfigurationError(f"{archive}: {_NAMES} does not have one name for every class")
    splits = {
        split: in_order([p for last in files for p in _pictures(tree, names[last], len(class_names))])
        for split, files in _FILES.items()
    }
    return Listing("cifar10", "cifar10", class_names, splits)


def _pictures(tree: Tree, name: str, classes: int) -> list[Picture]:
    archive, extent, batch = tree.path, tree.files[name], PurePosixPath(name).name
    records = np.fromfile(extent.path, np.uint8, extent.length, offset=extent.offset)
    if len(records) == 0 or len(records) % _RECORD_BYTES:
        raise ConfigurationError(
            f"{archive}: {batch} has {len(records):,} bytes, no whole number of records of {_RECORD_BYTES:,}"
        )
    labels = records[::_RECORD_BYTES].tolist()
    if max(labels) >= classes:
        raise ConfigurationError(f"{archive}: {batch} has a label {max(labels)}; there are {classes} names")
    places = range(extent.offset + 1, extent.offset + extent.length, _RECORD_BYTES)
    return [
        Picture(f"{batch}/{i:05d}", label, Extent(extent.path, place, _PIXEL_BYTES, extent.modified))
        for i, (label, place) in enumerate(zip(labels, places, strict=True))
    ]


CIFAR10 = Source("cifar10", "cifar-10-binary.tar.gz or the word cifar10", _recognizes, _list)
