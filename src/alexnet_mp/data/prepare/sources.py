"""Which kind a source is, and its list of pictures."""

from collections.abc import Callable
from pathlib import Path

from alexnet_mp.data.prepare.cifar10 import DOWNLOAD, download, list_cifar10
from alexnet_mp.data.prepare.folder import list_folder
from alexnet_mp.data.prepare.ilsvrc import TRAIN_TAR, list_ilsvrc
from alexnet_mp.data.prepare.listing import Listing
from alexnet_mp.data.prepare.settings import SourceKind
from alexnet_mp.errors import ConfigurationError


def list_source(source: str, kind: SourceKind, scratch: Path) -> Listing:
    """The pictures of a source; `kind` is `auto` or says which it must be. `scratch` is a folder for what is unpacked.

    Raises ConfigurationError where the source does not exist or is not of that kind.
    """
    if source == DOWNLOAD and not Path(source).exists():
        _agree(kind, "cifar10", source)
        return list_cifar10(download(), scratch)
    path = Path(source)
    if not path.exists():
        raise ConfigurationError(f"source={source} does not exist")
    found = _kind_of(path)
    _agree(kind, found, source)
    readers: dict[SourceKind, Callable[[], Listing]] = {
        "folder": lambda: list_folder(path),
        "ilsvrc": lambda: list_ilsvrc(path),
        "cifar10": lambda: list_cifar10(path, scratch),
    }
    return readers[found]()


def _kind_of(path: Path) -> SourceKind:
    if not path.is_dir():
        return "cifar10"
    return "ilsvrc" if (path / TRAIN_TAR).exists() else "folder"


def _agree(kind: SourceKind, found: SourceKind, source: str) -> None:
    if kind not in ("auto", found):
        raise ConfigurationError(
            f"source={source} looks like kind={found}, not kind={kind}: ilsvrc is a folder with {TRAIN_TAR}, cifar10 a "
            f"file or the word {DOWNLOAD}, folder any other folder"
        )
