"""The keys of `conf/prepare.yaml`, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from alexnet_mp.common.schema import from_mapping
from alexnet_mp.data.manifest import LARGEST_SIZE
from alexnet_mp.data.prepare.statistics import MOST_IMAGES
from alexnet_mp.errors import ConfigurationError

Kind = Literal["auto", "folder", "ilsvrc", "cifar10"]


@dataclass(frozen=True)
class PreparationSettings:
    """What to prepare and how; see `conf/prepare.yaml`. `workers` and `images_per_shard` have defaults of their own."""

    source: str
    out: str
    kind: Kind = "auto"
    size: int = 256
    workers: int | None = None
    strict: bool = False
    seed: int = 0
    images_per_shard: int | None = None
    max_pixels: int = 100_000_000

    def __post_init__(self) -> None:
        for name, value, most in (
            ("size", self.size, LARGEST_SIZE),
            ("workers", self.workers, 4096),
            ("images_per_shard", self.images_per_shard, MOST_IMAGES),
            ("max_pixels", self.max_pixels, 1 << 40),
        ):
            if value is not None and not 1 <= value <= most:
                raise ConfigurationError(f"{name}={value} must be from 1 to {most}")


def parse_preparation_settings(configuration: Mapping[str, Any]) -> PreparationSettings:
    """The settings in a composed configuration. Raises ConfigurationError for a key or value that cannot be."""
    return from_mapping(PreparationSettings, configuration, "")
