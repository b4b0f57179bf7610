"""Finds and reads the YAML presets of `conf/`, in a checkout and in an installed wheel alike."""

from importlib.resources import files
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from alexnet_mp.common.disk import regular
from alexnet_mp.common.schema import choice
from alexnet_mp.errors import explained

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


def read_preset(group: str, name_or_path: str | Path, key: str, what: str) -> object:
    """The plain values of a preset, by its name, or of a YAML file, by its path.

    Raises ConfigurationError for an unknown preset, which is named as the value of `key`, and for a file that is not
    YAML or cannot be read, which is called the `what`.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = preset_path(group, choice(str(name_or_path), preset_names(group), key))
    with explained(f"cannot read the {what} {path}", OSError, OmegaConfBaseException, YAMLError):
        return OmegaConf.to_container(OmegaConf.load(regular(path)), resolve=True)
