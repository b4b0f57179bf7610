"""The keys of `conf/prepare.yaml`, checked; finds the kind of the source, and lists its pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from alexnet_mp.common.schema import Bound
from alexnet_mp.data.manifest import LARGEST_SIZE, Codec
from alexnet_mp.data.prepare.cifar10 import DOWNLOAD, download, list_cifar10
from alexnet_mp.data.prepare.folder import list_folder
from alexnet_mp.data.prepare.ilsvrc import TRAIN_TAR, list_ilsvrc
from alexnet_mp.data.prepare.listing import Listing
from alexnet_mp.data.prepare.statistics import MOST_IMAGES
from alexnet_mp.errors import ConfigurationError

SourceKind = Literal["auto", "folder", "ilsvrc", "cifar10"]


def _up_to(most: int) -> Bound:
    return Bound(f"be from 1 to {most}", lambda value: 1 <= value <= most)


@dataclass(frozen=True)
class PreparationSettings:
    """What to prepare and how; see `conf/prepare.yaml`. `workers` and `images_per_shard` have defaults of their own."""

    source: str
    out: str
    kind: SourceKind = "auto"
    size: Annotated[int, _up_to(LARGEST_SIZE)] = 256
    workers: Annotated[int, _up_to(4096)] | None = None
    strict: bool = False
    seed: int = 0
    images_per_shard: Annotated[int, _up_to(MOST_IMAGES)] | None = None
    max_pixels: Annotated[int, _up_to(1 << 40)] = 100_000_000
    codec: Codec = "raw"
    quality: Annotated[int, _up_to(100)] = 90


def list_source(source: str, kind: SourceKind, scratch: Path) -> Listing:
    """The pictures of a source; `kind` is `auto` or says which it must be. `scratch` is a folder for what is unpacked.

    Raises ConfigurationError if the source does not exist or is not of that kind.
    """
    path = Path(source)
    if not path.exists() and source != DOWNLOAD:
        raise ConfigurationError(f"source={source} does not exist")
    found = "folder" if path.is_dir() else "cifar10"
    if (path / TRAIN_TAR).exists():
        found = "ilsvrc"
    if kind not in ("auto", found):
        raise ConfigurationError(
            f"source={source} looks like kind={found}, not kind={kind}: ilsvrc is a folder with {TRAIN_TAR}, cifar10 a "
            f"file or the word {DOWNLOAD}, folder any other folder"
        )
    if found == "cifar10":
        return list_cifar10(path if path.exists() else download(), scratch)
    return list_ilsvrc(path, scratch) if found == "ilsvrc" else list_folder(path)
