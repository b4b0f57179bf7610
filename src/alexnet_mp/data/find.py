"""Finds data by their content: a pack that has moved or has another name is known by its fingerprint."""

from dataclasses import replace
from itertools import chain
from pathlib import Path

from alexnet_mp.data.load import DataSettings, open_data
from alexnet_mp.data.manifest import MANIFEST
from alexnet_mp.errors import ConfigurationError

_MOST_PACKS = 50  # of a folder that are looked at


def find_data(settings: DataSettings, run: Path, from_run: str | None, fingerprint: int | None) -> DataSettings:
    """The settings with the path at which the data of this `fingerprint` are; unchanged if they are found nowhere.

    These are tried in turn: the path as it is, `from_run` (the path from the folder `run` when the run began), the path
    from each folder that `run` lies in, and then the packs beside all of these. A folder of pictures, whose fingerprint
    takes long to make, is found by its place alone.
    """
    if settings.path is None or fingerprint is None:
        return settings
    places = [Path(settings.path), *([run / from_run] if from_run else [])]
    places += [above / settings.path for above in (run.absolute(), *run.absolute().parents)]
    folders = dict.fromkeys(place.absolute().parent for place in places if settings.source == "pack")
    beside = (path.parent for folder in folders for path in sorted(folder.glob(f"*/{MANIFEST}"))[:_MOST_PACKS])
    moved = (replace(settings, path=str(place)) for place in chain(dict.fromkeys(places), beside))
    return next((each for each in moved if _holds(each, fingerprint)), settings)


def _holds(settings: DataSettings, fingerprint: int) -> bool:
    try:
        if settings.source == "folder":
            return Path(settings.path or "").is_dir()
        return open_data(replace(settings, verify=False)).fingerprint() == fingerprint
    except (ConfigurationError, OSError):
        return False
