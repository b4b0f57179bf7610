"""Class folders: train/, val/ or validation/, test/, each with a folder for every class, or flat beside its labels.

They may lie in a folder, a zip or a tar; Imagenette is such a source.
"""

from alexnet_mp.data.manifest import Skipped
from alexnet_mp.data.prepare.listing import Listing, Picture, in_order, some
from alexnet_mp.data.prepare.sources.labels import find_labels, labeled_pictures
from alexnet_mp.data.prepare.sources.source import Sight, Source
from alexnet_mp.data.prepare.sources.words import class_words
from alexnet_mp.errors import ConfigurationError

_FOLDERS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}


def _recognizes(sight: Sight) -> bool:
    return bool(sight.tree.folders & {"train", "val", "validation"})


def _list(sight: Sight) -> Listing:
    folders = {}
    for split, names in _FOLDERS.items():
        found = [name for name in names if name in sight.tree.folders]
        if len(found) > 1:
            raise ConfigurationError(f"source={sight.path} has both {names[0]}/ and {names[1]}/; keep one of them")
        if found:
            folders[split] = found[0]
    return list_class_folders(sight, "folder", folders)


def list_class_folders(
    sight: Sight, kind: str, folders: dict[str, str], flat: tuple[str, ...] = (), no_pictures: str = ""
) -> Listing:
    """The pictures in the `folders` of the splits. The classes are the folders of train/, sorted by name.

    Every file under a class folder counts as a picture until it is decoded, but for names that end with `no_pictures`.
    Splits without folders, and those in `flat`, are flat. A split whose labels are not known is left out. Raises
    ConfigurationError without train/, for a class without a file to train on, and for a class elsewhere that train/
    does not have.
    """
    tree, path = sight.tree, sight.path
    if "train" not in folders:
        raise ConfigurationError(f"source={path} has no folder train with a folder for every class")
    class_names = tuple(sorted(tree.subfolders(folders["train"])))
    if not class_names:
        raise ConfigurationError(f"{path / folders['train']} has no folders; every class needs one")
    splits: dict[str, list[Picture]] = {}
    skipped, left_out = [], []
    for split, folder in folders.items():
        skipped += [Skipped(split, n, "not a regular file") for n in tree.special if n.startswith(f"{folder}/")]
        inside = tree.subfolders(folder)
        if split != "train" and (split in flat or not inside & set(class_names)):
            said = find_labels(sight, split, folder, class_names)
            if said is None:
                count = sum(1 for _ in tree.under(folder))
                why = f"nothing labels its {count:,} files" if count else "it is empty"
                if inside and split not in flat:
                    why += f", and its folders are no classes of train/: {some(inside)}"
                left_out.append(f"{split} ({folder}/: {why})")
                continue
            pictures, others = labeled_pictures(sight, split, folder, class_names, said)
        else:
            pictures, others = _in_class_folders(sight, split, folder, class_names, no_pictures)
        splits[split] = in_order(pictures)
        skipped += others
    empty = set(class_names) - {class_names[picture.label] for picture in splits["train"]}
    if empty:
        raise ConfigurationError(
            f"{path / folders['train'] / min(empty)} has no files; every class needs pictures to train on"
        )
    words = class_words(tree, class_names)
    return Listing(kind, "image", class_names, splits, tuple(skipped), words, tuple(left_out))


def _in_class_folders(
    sight: Sight, split: str, folder: str, class_names: tuple[str, ...], no_pictures: str
) -> tuple[list[Picture], list[Skipped]]:
    labels = {name: label for label, name in enumerate(class_names)}
    strange = sight.tree.subfolders(folder) - set(labels)
    if strange:
        raise ConfigurationError(f"{sight.path / folder / min(strange)} is a class that train/ does not have")
    pictures, skipped = [], []
    for name in sight.tree.under(folder):
        key, inside, _ = name[len(folder) + 1 :].partition("/")
        if not inside:
            skipped.append(Skipped(split, name, "not in the folder of a class"))
        elif not no_pictures or not name.endswith(no_pictures):
            pictures.append(sight.tree.picture(name, labels[key]))
    return pictures, skipped


CLASS_FOLDERS = Source("folder", "train/CLASS/ and val/CLASS/, or a flat val/ with its labels", _recognizes, _list)
