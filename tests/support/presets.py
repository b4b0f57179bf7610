"""The presets of `conf/`, and configurations composed once for all tests."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from alexnet_mp.common.cli import compose
from tests.support.processes import CHECKOUT


def presets(group: str) -> list[Path]:
    """The files of a group, those in its folders too; of `.` the commands' own alone."""
    folder = CHECKOUT / "conf" / group
    return sorted(folder.glob("*.yaml") if group == "." else folder.rglob("*.yaml"))


def name_in(group: str, path: Path) -> str:
    """What a preset is called after `group=`."""
    return path.relative_to(CHECKOUT / "conf" / group).with_suffix("").as_posix()


@cache
def composed(configuration: str, *overrides: str) -> Mapping[str, Any]:
    """What `compose` gives, which takes a quarter of a second; nobody changes it."""
    return compose(configuration, list(overrides))
