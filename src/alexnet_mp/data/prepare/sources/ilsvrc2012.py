"""ILSVRC-2012 as downloaded: the tars of training and validation images, and the devkit for the labels."""

from alexnet_mp.data.prepare.sources.ilsvrc import list_ilsvrc
from alexnet_mp.data.prepare.sources.source import Source

_TARS = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}

ILSVRC2012 = Source(
    "ilsvrc",
    f"a folder with {_TARS['train']}",
    lambda sight: any(map(sight.tree.path_of, _TARS.values())),
    lambda sight: list_ilsvrc(sight, "ilsvrc", 2012, _TARS),
)
