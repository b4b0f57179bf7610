"""Class folders: train/, val/ or validation/, test/, each with a folder for every class, or flat beside its labels.

They may lie in a folder, a zip or a tar; Imagenette is such a source.
"""

from alexnet_mp.data.manifest import Skipped
from alexnet_mp.data.prepare.listing import Listing, some
from alexnet_mp.data.prepare.sources.labels import find_labels, labeled_pictures
from alexnet_mp.data.prepare.sources.source import Keyed, Sight, Source
from alexnet_mp.errors import ConfigurationError


def _list(sight: Sight) -> Listing:
    there = sight.tree.folders
    if {"val", "validation"} <= there:
        raise ConfigurationError(f"source={sight.path} has both validation/ and val/; keep one of them")
    folders = {"train": "train", "validation": "val" if "val" in there else "validation", "test": "test"}
    return list_class_folders(sight, "folder", {split: name for split, name in folders.items() if name in there})


def list_class_folders(
    sight: Sight, kind: str, folders: dict[str, str], flat: tuple[str, ...] = (), no_pictures: str = "\0"
) -> Listing:
    """The pictures in the `folders` of the splits. The classes are the folders of train/, sorted by name.

    Every file under a class folder counts as a picture until it is decoded, but for names that end with `no_pictures`.
    Splits without folders of classes, and those in `flat`, are flat. A split whose labels are not known is left out.
    Raises ConfigurationError without train/, for a class without a file to train on, and for a class elsewhere that
    train/ does not have.
    """
    tree = sight.tree
    if "train" not in folders:
        raise ConfigurationError(f"source={sight.path} has no folder train with a folder for every class")
    classes = sorted(tree.subfolders(folders["train"]))
    if not classes:
        raise ConfigurationError(f"{sight.path / folders['train']} has no folders; every class needs one")
    splits: dict[str, Keyed] = {}
    skipped, left_out = [], []
    for split, folder in folders.items():
        skipped += [Skipped(split, n, "not a regular file") for n in tree.special if n.startswith(f"{folder}/")]
        inside = tree.subfolders(folder)
        if split != "train" and (split in flat or not inside & set(classes)):
            said = find_labels(sight, split, classes)
            if said is not None:
                splits[split], others = labeled_pictures(tree, split, folder, classes, said)
                skipped += others
            else:
                files = f"{sum(1 for _ in tree.under(folder)):,} files of {folder}/"
                strange = f", whose folders are no classes of train: {some(inside)}" if inside else ""
                left_out.append(f"{split} (nothing labels the {files}{strange})")
            continue
        splits[split] = []
        for name in tree.under(folder):
            key, below, _ = name[len(folder) + 1 :].partition("/")
            if not below:
                skipped.append(Skipped(split, name, "not in the folder of a class"))
            elif not name.endswith(no_pictures):
                splits[split].append((key, tree.picture(name)))
    return sight.listing(kind, splits, classes, left_out, skipped)


CLASS_FOLDERS = Source(
    "folder",
    "train/CLASS/ and val/CLASS/, or a flat val/ with its labels",
    lambda sight: bool(sight.tree.folders & {"train", "val", "validation"}),
    _list,
)
