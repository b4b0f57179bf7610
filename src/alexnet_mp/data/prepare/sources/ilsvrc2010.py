"""ILSVRC-2010 as downloaded, on whose test set the paper's main table stands: the one year with public test labels."""

from alexnet_mp.data.prepare.listing import Listing
from alexnet_mp.data.prepare.sources.devkit import YEARS
from alexnet_mp.data.prepare.sources.ilsvrc import list_ilsvrc
from alexnet_mp.data.prepare.sources.source import Sight, Source

TARS = {
    "train": "ILSVRC2010_images_train.tar",
    "validation": "ILSVRC2010_images_val.tar",
    "test": "ILSVRC2010_images_test.tar",
}
TEST_TRUTH = "ILSVRC2010_test_ground_truth.txt"
PATCHES = "patch_images.tar"  # replacements for damaged pictures, in train/, val/ and test/


def _recognizes(sight: Sight) -> bool:
    return sight.path.is_dir() and any(map(sight.tree.path_of, TARS.values()))


def _list(sight: Sight) -> Listing:
    return list_ilsvrc(sight, YEARS[1], TARS, {"test": TEST_TRUTH}, PATCHES)


ILSVRC2010 = Source("ilsvrc2010", f"a folder with {TARS['train']}", _recognizes, _list)
