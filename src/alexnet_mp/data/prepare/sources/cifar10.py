"""Lists CIFAR-10's binary archive, downloaded and verified or a local file."""

from pathlib import Path, PurePosixPath

import numpy as np
import pooch  # type: ignore[import-untyped]

from alexnet_mp.data.prepare.listing import Listing, Picture, in_order
from alexnet_mp.data.prepare.sources.source import Sight, Source
from alexnet_mp.data.prepare.tar import unpack
from alexnet_mp.errors import ConfigurationError, explained

DOWNLOAD = "cifar10"
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"

_PIXEL_BYTES = 3 * 32 * 32
_RECORD_BYTES = 1 + _PIXEL_BYTES  # the label comes first
_FILES = {"train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "test": ("test_batch.bin",)}
_NAMES = "batches.meta.txt"
_LARGEST_FILE = 1 << 28  # bytes; the real ones have 30,730,000
_LARGEST = 1 << 30


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
        return True  # the word
    if not sight.path.is_file():
        return False
    if "cifar" in sight.path.name.lower():
        return True
    first = {PurePosixPath(name).name for names in sight.tars.values() for name in names}
    return bool(first & set(_FILES["train"]))


def _list(sight: Sight) -> Listing:
    return list_cifar10(sight.path if sight.path.exists() else download(), sight.scratch)


def list_cifar10(archive: Path, scratch: Path) -> Listing:
    """The pictures of the archive, whose batches are unpacked into the folder `scratch`.

    Raises ConfigurationError if the file is not such an archive, lacks a batch, or has a batch that is no whole
    number of records or has a label without a name.
    """
    folder = scratch / "cifar10"
    folder.mkdir(exist_ok=True)
    wanted = {_NAMES, *(name for names in _FILES.values() for name in names)}
    unpack(archive, wanted, folder, _LARGEST_FILE, _LARGEST, "CIFAR-10's binary version")
    class_names = tuple((folder / _NAMES).read_text(errors="replace").split())
    if not class_names or len(set(class_names)) != len(class_names):
        raise ConfigurationError(f"{archive}: {_NAMES} does not have one name for every class")
    modified = archive.stat().st_mtime_ns
    splits = {
        split: in_order([p for name in names for p in _pictures(archive, folder / name, len(class_names), modified)])
        for split, names in _FILES.items()
    }
    return Listing("cifar10", "cifar10", class_names, splits)


def _pictures(archive: Path, batch: Path, classes: int, modified: int) -> list[Picture]:
    records = np.fromfile(batch, dtype=np.uint8)
    if len(records) == 0 or len(records) % _RECORD_BYTES:
        raise ConfigurationError(
            f"{archive}: {batch.name} has {len(records):,} bytes, no whole number of records of {_RECORD_BYTES:,}"
        )
    labels = records[::_RECORD_BYTES].tolist()
    if max(labels) >= classes:
        raise ConfigurationError(f"{archive}: {batch.name} has a label {max(labels)}; there are {classes} names")
    return [
        Picture(f"{batch.name}/{i:05d}", label, str(batch), i * _RECORD_BYTES + 1, _PIXEL_BYTES, modified)
        for i, label in enumerate(labels)
    ]


CIFAR10 = Source("cifar10", "cifar-10-binary.tar.gz or the word cifar10", _recognizes, _list)
