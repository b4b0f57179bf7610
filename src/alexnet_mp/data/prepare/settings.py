"""The keys of `conf/prepare.yaml`, checked."""

from dataclasses import dataclass
from typing import Annotated

from alexnet_mp.common.schema import Bound
from alexnet_mp.data.manifest import LARGEST_SIZE, Codec
from alexnet_mp.data.prepare.statistics import MOST_IMAGES


def _up_to(most: int) -> Bound:
    return Bound(f"be from 1 to {most}", lambda value: 1 <= value <= most)


@dataclass(frozen=True)
class PreparationSettings:
    """What to prepare and how; see `conf/prepare.yaml`. `workers` and `images_per_shard` have defaults of their own."""

    source: str
    out: str
    kind: str = "auto"
    size: Annotated[int, _up_to(LARGEST_SIZE)] = 256
    workers: Annotated[int, _up_to(4096)] | None = None
    strict: bool = False
    seed: int = 0
    images_per_shard: Annotated[int, _up_to(MOST_IMAGES)] | None = None
    split: Annotated[float, Bound("lie between 0 and 1", lambda value: 0 < value < 1)] | None = None
    max_pixels: Annotated[int, _up_to(1 << 40)] = 100_000_000
    codec: Codec = "raw"
    quality: Annotated[int, _up_to(100)] = 90
