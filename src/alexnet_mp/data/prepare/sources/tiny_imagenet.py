"""Tiny ImageNet: 200 classes of 64x64 pictures in train/WNID/images/, and a flat val/images/ with its annotations."""

from alexnet_mp.data.prepare.listing import Listing
from alexnet_mp.data.prepare.sources.class_folders import list_class_folders
from alexnet_mp.data.prepare.sources.labels import ANNOTATIONS
from alexnet_mp.data.prepare.sources.source import Sight, Source

_BOXES = "_boxes.txt"  # of every class, beside its images/


def _recognizes(sight: Sight) -> bool:
    files = sight.tree.files
    return "train" in sight.tree.folders and (f"val/{ANNOTATIONS}" in files or "wnids.txt" in files)


def _list(sight: Sight) -> Listing:
    # Many have sorted the validation pictures into folders of classes. The test pictures have no labels.
    folders = {"train": "train", "validation": "val", "test": "test"}
    flat = {split: f"{name}/images" for split, name in folders.items() if f"{name}/images" in sight.tree.folders}
    there = {split: name for split, name in folders.items() if name in sight.tree.folders}
    return list_class_folders(sight, "tiny_imagenet", {**there, **flat}, tuple(flat), _BOXES)


TINY_IMAGENET = Source("tiny_imagenet", "train/WNID/images/ and val/val_annotations.txt", _recognizes, _list)
