"""ILSVRC-2010 as downloaded, on whose test set the paper's main table stands: the one year with public test labels."""

from alexnet_mp.data.prepare.sources.ilsvrc import list_ilsvrc
from alexnet_mp.data.prepare.sources.source import Source

_TARS = {s: f"ILSVRC2010_images_{n}.tar" for s, n in (("train", "train"), ("validation", "val"), ("test", "test"))}
_TEST_TRUTH = "ILSVRC2010_test_ground_truth.txt"
_PATCHES = "patch_images.tar"  # replacements for damaged pictures, in train/, val/ and test/

ILSVRC2010 = Source(
    "ilsvrc2010",
    f"a folder with {_TARS['train']}",
    lambda sight: any(map(sight.tree.path_of, _TARS.values())),
    lambda sight: list_ilsvrc(sight, "ilsvrc2010", 2010, _TARS, _TEST_TRUTH, _PATCHES),
)
