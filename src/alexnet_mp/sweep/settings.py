"""The keys of `conf/sweep.yaml`, checked: named variants, seeds, and how the jobs run."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from alexnet_mp.common.schema import Bound, PositiveInt, choice, from_mapping
from alexnet_mp.errors import ConfigurationError

JSON_FILE, CSV_FILE = "sweep.json", "sweep.csv"

# A variant's name is the name of a folder, and stands in tables.
_NAME = re.compile(r"[A-Za-z0-9_][\w.+-]*", re.ASCII)
_LONGEST_NAME = 100
_OURS = {"seed": "seeds=[0,1,2]", "run_dir": "out=FOLDER"}

ErrorFraction = Annotated[float, Bound("be a fraction between 0 and 1", lambda value: 0 <= value <= 1)]


@dataclass(frozen=True)
class PublishedErrors:
    """What others found for a variant, to stand beside ours; errors are fractions between 0 and 1.

    `top1_points` and `top5_points` say by how many points of per cent it was above what they compared it with.
    """

    source: str
    top1_error: ErrorFraction | None = None
    top5_error: ErrorFraction | None = None
    top1_points: float | None = None
    top5_points: float | None = None


@dataclass(frozen=True)
class Variant:
    """A way to train: overrides of `conf/train.yaml`, presets or keys, as on the command line of `launch/train.py`."""

    overrides: tuple[str, ...]
    published: PublishedErrors | None = None


@dataclass(frozen=True)
class SweepSettings:
    """The keys of `conf/sweep.yaml`, which says what they mean; `variants` by name, in their order."""

    out: str
    variants: dict[str, Variant]
    baseline: str | None
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    processes: PositiveInt
    parallel: PositiveInt
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.baseline is not None:
            choice(self.baseline, self.variants, "baseline")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigurationError(f"seeds are {list(self.seeds)}; give one or more, each of them once")
        if len({name.casefold() for name in self.variants}) < len(self.variants):
            raise ConfigurationError(
                "two variants have the same name but for its case; some disks make them one folder"
            )
        _check_overrides("overrides", self.overrides)
        for name, variant in self.variants.items():
            _check_overrides(f"variants.{name}", variant.overrides)


def parse_sweep_settings(configuration: Mapping[str, Any]) -> SweepSettings:
    """Check a composed configuration. Raises ConfigurationError that names the key."""
    said = configuration.get("variants")
    if not isinstance(said, Mapping) or not said:
        raise ConfigurationError(
            "variants is empty; name what to compare: sweep=lrn, a preset of conf/sweep, or on the command line "
            "\"variants={lrn: [], no_lrn: ['network.layers.lrn1=null']}\""
        )
    variants = {}
    for name, value in ((str(name), value) for name, value in said.items()):
        if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME or name in (JSON_FILE, CSV_FILE):
            raise ConfigurationError(
                f"a variant is called {name!r}; its name is that of a folder: up to {_LONGEST_NAME} letters, digits, "
                "_ - . +, neither - . nor + first"
            )
        variants[name] = value if isinstance(value, Mapping) else {"overrides": value}
    return from_mapping(SweepSettings, {**configuration, "variants": variants}, "")


def _check_overrides(where: str, overrides: tuple[str, ...]) -> None:
    for override in overrides:
        key, equals, _ = override.partition("=")
        if override.startswith("-") or not (equals or override.startswith("~")):
            raise ConfigurationError(f"{where} has {override!r}, which is no override: key=value, or preset=name")
        if key.lstrip("+~") in _OURS:
            raise ConfigurationError(
                f"{where} has {override!r}, but a sweep gives every job its own; use {_OURS[key.lstrip('+~')]}"
            )
