"""Lists a folder of pictures: train/, val/ or validation/, test/, each with one folder for every class."""

import os
from collections.abc import Iterator
from pathlib import Path

from alexnet_mp.data.manifest import Skipped
from alexnet_mp.data.prepare.listing import Listing, Picture, in_order
from alexnet_mp.errors import ConfigurationError, explained

_FOLDERS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}


def list_folder(source: Path) -> Listing:
    """The pictures under `source`. The classes are the folders of train/, sorted by name.

    Every file under a class folder counts as a picture until it is decoded; names that begin with a dot are passed
    over. Raises ConfigurationError without train/, for a class without a file to train on, and for a class elsewhere
    that train/ does not have.
    """
    folders: dict[str, Path] = {}
    for split, names in _FOLDERS.items():
        found = [source / name for name in names if (source / name).is_dir()]
        if len(found) > 1:
            raise ConfigurationError(f"source={source} has both {names[0]}/ and {names[1]}/; keep one of them")
        if found:
            folders[split] = found[0]
    train = folders.get("train")
    if train is None:
        raise ConfigurationError(f"source={source} has no folder train with a folder for every class")
    class_names = tuple(sorted(entry.name for entry in _entries(train) if entry.is_dir()))
    if not class_names:
        raise ConfigurationError(f"{train} has no folders; every class needs one")
    labels = {name: label for label, name in enumerate(class_names)}
    skipped: list[Skipped] = []
    splits = {
        split: in_order(list(_pictures(source, split, folder, labels, skipped))) for split, folder in folders.items()
    }
    empty = set(class_names) - {class_names[picture.label] for picture in splits["train"]}
    if empty:
        raise ConfigurationError(f"{train / min(empty)} has no files; every class needs pictures to train on")
    return Listing("folder", "image", class_names, splits, tuple(skipped))


def _pictures(
    source: Path, split: str, folder: Path, labels: dict[str, int], skipped: list[Skipped]
) -> Iterator[Picture]:
    for entry in _entries(folder):
        if not entry.is_dir():
            skipped.append(Skipped(split, str(Path(entry.path).relative_to(source)), "not in the folder of a class"))
            continue
        if entry.name not in labels:
            raise ConfigurationError(f"{entry.path} is a class that train/ does not have")
        for file in _files(entry.path):
            name = os.path.relpath(file.path, source)
            if not file.is_file():
                skipped.append(Skipped(split, name, "not a regular file"))
                continue
            state = file.stat()
            yield Picture(name, labels[entry.name], file.path, 0, state.st_size, state.st_mtime_ns)


def _files(folder: str) -> Iterator[os.DirEntry[str]]:
    """All files under a class folder, however deep; links to folders are not followed."""
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path)
        else:
            yield entry


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    with explained(f"cannot list {folder}"), os.scandir(folder) as entries:
        return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
