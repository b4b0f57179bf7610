"""Kaggle's copy of ILSVRC-2012, unpacked or as its zip: class folders to train on, a flat val/ beside its solution."""

from alexnet_mp.data.prepare.listing import Listing
from alexnet_mp.data.prepare.sources.class_folders import list_class_folders
from alexnet_mp.data.prepare.sources.source import Sight, Source


def _data(sight: Sight) -> str:
    """The folder of the splits; of the outer folders some may be missing."""
    folders = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
    return next((folder for folder in folders if folder in sight.tree.folders), "")


def _list(sight: Sight) -> Listing:
    splits = {"train": "train", "validation": "val", "test": "test"}
    folders = {split: f"{_data(sight)}/{name}" for split, name in splits.items()}
    there = {split: folder for split, folder in folders.items() if folder in sight.tree.folders}
    return list_class_folders(sight, "kaggle", there)


KAGGLE = Source("kaggle", "ILSVRC/Data/CLS-LOC/ beside LOC_val_solution.csv", lambda sight: bool(_data(sight)), _list)
