"""ILSVRC-2012 as downloaded: the tars of training and validation images, and the devkit for the labels."""

from alexnet_mp.data.prepare.listing import Listing
from alexnet_mp.data.prepare.sources.devkit import YEARS
from alexnet_mp.data.prepare.sources.ilsvrc import list_ilsvrc
from alexnet_mp.data.prepare.sources.source import Sight, Source

TARS = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}


def _recognizes(sight: Sight) -> bool:
    return sight.path.is_dir() and any(map(sight.tree.path_of, TARS.values()))


def _list(sight: Sight) -> Listing:
    return list_ilsvrc(sight, YEARS[0], TARS, {})


ILSVRC2012 = Source("ilsvrc", f"a folder with {TARS['train']}", _recognizes, _list)
