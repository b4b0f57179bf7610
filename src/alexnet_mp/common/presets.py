"""Finds the YAML presets of `conf/`, in a checkout and in an installed wheel alike."""

from importlib.resources import files
from pathlib import Path

CONF_PACKAGE = "alexnet_mp.conf"


def configuration_path(name: str) -> Path:
    """Path of a command's configuration, `train` or `benchmark/micro`."""
    return Path(str(files(CONF_PACKAGE))) / f"{name}.yaml"


def preset_path(group: str, name: str) -> Path:
    """Path of the preset `name` of the group `network`, `recipe`, `data`, `experiment` or `hardware`."""
    return Path(str(files(CONF_PACKAGE))) / group / f"{name}.yaml"


def preset_names(group: str) -> list[str]:
    """Names of all presets of a group, sorted; one in a folder of the group has the folder in front, `study/conv6`."""
    folder = Path(str(files(CONF_PACKAGE))) / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
