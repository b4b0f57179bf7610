"""The settings of a sweep: named variants, seeds, and how the jobs run, checked key by key."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alexnet_mp.common.schema import choice, from_mapping
from alexnet_mp.errors import ConfigurationError

# A variant's name is the name of a folder, and stands in tables.
_NAME = re.compile(r"[A-Za-z0-9_][\w.+-]*", re.ASCII)
_LONGEST_NAME = 100
RESERVED = ("sweep.json", "sweep.csv")
_OURS = {"seed": "seeds=[0,1,2]", "run_dir": "out=FOLDER"}


@dataclass(frozen=True)
class Published:
    """What others found for a variant, to stand beside ours; errors are fractions between 0 and 1.

    `top1_points` and `top5_points` say by how many points of per cent it was above what they compared it with.
    """

    source: str
    top1_error: float | None = None
    top5_error: float | None = None
    top1_points: float | None = None
    top5_points: float | None = None


@dataclass(frozen=True)
class Variant:
    """A way to train: overrides of `conf/train.yaml`, presets or keys, as on the command line of `launch/train.py`."""

    overrides: tuple[str, ...]
    published: Published | None = None


@dataclass(frozen=True)
class SweepSettings:
    """The keys of `conf/sweep.yaml`, which says what they mean; `variants` by name, in their order."""

    out: str
    variants: dict[str, Variant]
    baseline: str | None
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    processes: int
    parallel: int


def parse_sweep_settings(configuration: Mapping[str, Any]) -> SweepSettings:
    """Check a composed configuration. Raises ConfigurationError that names the key."""
    said = configuration.get("variants")
    if not isinstance(said, Mapping) or not said:
        raise ConfigurationError(
            "variants is empty; name what to compare: sweep=lrn, a preset of conf/sweep, or on the command line "
            "\"variants={lrn: [], no_lrn: ['network.layers.lrn1=null']}\""
        )
    variants = {str(name): _variant(str(name), value) for name, value in said.items()}
    settings = from_mapping(SweepSettings, configuration, "", ready={"variants": variants})
    if settings.baseline is not None:
        choice(settings.baseline, variants, "baseline")
    if not settings.seeds or len(set(settings.seeds)) < len(settings.seeds):
        raise ConfigurationError(f"seeds are {list(settings.seeds)}; give one or more, each of them once")
    for name in ("processes", "parallel"):
        if getattr(settings, name) < 1:
            raise ConfigurationError(f"{name} is {getattr(settings, name)}, must be at least 1")
    if len({name.casefold() for name in variants}) < len(variants):
        raise ConfigurationError("two variants have the same name but for its case; some disks make them one folder")
    _check_overrides("overrides", settings.overrides)
    return settings


def _variant(name: str, value: object) -> Variant:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME or name in RESERVED:
        raise ConfigurationError(
            f"a variant is called {name!r}; its name is that of a folder: up to {_LONGEST_NAME} letters, digits, "
            "_ - . +, neither - . nor + first"
        )
    where = f"variants.{name}"
    mapping = value if isinstance(value, Mapping) else {"overrides": value}
    variant = from_mapping(Variant, mapping, where)
    _check_overrides(where, variant.overrides)
    published = variant.published
    errors = (published.top1_error, published.top5_error) if published else ()
    if any(error is not None and not 0 <= error <= 1 for error in errors):
        raise ConfigurationError(f"{where}.published has an error that is no fraction between 0 and 1: {errors}")
    return variant


def _check_overrides(where: str, overrides: tuple[str, ...]) -> None:
    for override in overrides:
        key, equals, _ = override.partition("=")
        if override.startswith("-") or not (equals or override.startswith("~")):
            raise ConfigurationError(f"{where} has {override!r}, which is no override: key=value, or preset=name")
        if key.lstrip("+~") in _OURS:
            raise ConfigurationError(
                f"{where} has {override!r}, but a sweep gives every job its own; use {_OURS[key.lstrip('+~')]}"
            )
