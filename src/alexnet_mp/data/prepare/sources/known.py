"""The list of the sources that preparation knows, and the choice of the one that a path is."""

from collections import Counter
from pathlib import Path

from alexnet_mp.common.disk import regular
from alexnet_mp.common.schema import choice
from alexnet_mp.data.prepare.listing import Listing, some
from alexnet_mp.data.prepare.sources.cifar10 import CIFAR10, DOWNLOAD
from alexnet_mp.data.prepare.sources.class_folders import CLASS_FOLDERS
from alexnet_mp.data.prepare.sources.hugging_face import HUGGING_FACE
from alexnet_mp.data.prepare.sources.ilsvrc2010 import ILSVRC2010
from alexnet_mp.data.prepare.sources.ilsvrc2012 import ILSVRC2012
from alexnet_mp.data.prepare.sources.kaggle import KAGGLE
from alexnet_mp.data.prepare.sources.source import Sight
from alexnet_mp.data.prepare.sources.tiny_imagenet import TINY_IMAGENET
from alexnet_mp.data.prepare.sources.webdataset import WEBDATASET
from alexnet_mp.errors import ConfigurationError

# The first that recognizes a path takes it.
SOURCES = (CIFAR10, ILSVRC2012, ILSVRC2010, KAGGLE, TINY_IMAGENET, HUGGING_FACE, WEBDATASET, CLASS_FOLDERS)


def list_source(source: str, kind: str, scratch: Path) -> Listing:
    """The pictures of a source; `kind` is `auto` or says which it must be. `scratch` is a folder for what is unpacked.

    Raises ConfigurationError if the source does not exist, is not of that kind, or of none that is known, and for a
    picture that is there twice under one name.
    """
    choice(kind, ["auto", *(each.kind for each in SOURCES)], "kind")
    path = Path(source)
    if not regular(path).exists() and source != DOWNLOAD:
        raise ConfigurationError(f"source={source} does not exist")
    sight = Sight(path, scratch)
    found = next((each for each in SOURCES if each.recognizes(sight)), None)
    if found is None:
        expected = "; ".join(f"{each.kind}: {each.expected}" for each in SOURCES)
        raise ConfigurationError(f"source={source} is not understood. Seen: {_seen(sight)}. Expected {expected}")
    if kind not in ("auto", found.kind):
        wanted = next(each.expected for each in SOURCES if each.kind == kind)
        raise ConfigurationError(f"source={source} looks like kind={found.kind}, not kind={kind}, which is {wanted}")
    listing = found.list_pictures(sight)
    for split, pictures in listing.splits.items():
        twice = [name for name, count in Counter(picture.name for picture in pictures).items() if count > 1]
        if twice:
            raise ConfigurationError(f"source={source}: {split} has pictures twice under one name: {some(twice)}")
    return listing


def _seen(sight: Sight) -> str:
    """The folders with the number of files in each, and three names."""
    names = sight.tree.files
    if not names:
        return f"no files, and {len(sight.tree.folders)} folders"
    counts = Counter(name.rpartition("/")[0] for name in names)
    folders = [f"{folder or '.'}/ {count:,}" for folder, count in counts.most_common(6)]
    more = f" and {len(counts) - 6:,} folders more" if len(counts) > 6 else ""
    return f"{', '.join(folders)}{more}; for example {some(names)}"
