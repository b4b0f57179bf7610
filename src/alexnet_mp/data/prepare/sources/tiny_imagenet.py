"""Tiny ImageNet: 200 classes of 64x64 pictures in train/WNID/images/, and a flat val/images/ with its annotations."""

from alexnet_mp.data.prepare.listing import Listing
from alexnet_mp.data.prepare.sources.class_folders import list_class_folders
from alexnet_mp.data.prepare.sources.labels import ANNOTATIONS
from alexnet_mp.data.prepare.sources.source import Sight, Source

_CLASSES = "wnids.txt"
_BOXES = "_boxes.txt"  # of every class, beside its images/
_FLAT = {"validation": "val/images", "test": "test/images"}  # the test pictures have no labels


def _recognizes(sight: Sight) -> bool:
    files = sight.tree.files
    return "train" in sight.tree.folders and (f"val/{ANNOTATIONS}" in files or _CLASSES in files)


def _list(sight: Sight) -> Listing:
    there = sight.tree.folders
    flat = {split: folder for split, folder in _FLAT.items() if folder in there}
    # Many have sorted the validation pictures into folders of classes.
    in_classes = {"validation": "val"} if "val" in there and "validation" not in flat else {}
    return list_class_folders(sight, "tiny_imagenet", {"train": "train", **flat, **in_classes}, tuple(flat), _BOXES)


TINY_IMAGENET = Source(
    "tiny_imagenet", "Tiny ImageNet's train/WNID/images/ and val/val_annotations.txt", _recognizes, _list
)
