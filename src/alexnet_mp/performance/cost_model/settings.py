"""The settings of `launch/plan.py`: the composed configuration, checked key by key."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from alexnet_mp.common.schema import OutputFile, PositiveFloat, PositiveInt, from_mapping
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.table import Network
from alexnet_mp.performance.cost_model.software import Rate

IMAGENET_TRAIN = 1_281_167  # ILSVRC-2012's training images


@dataclass(frozen=True)
class PlanSettings:
    """The keys of `conf/plan.yaml`, which says what they mean."""

    network: Network
    towers: int | None
    hardware: str
    replicas: PositiveInt
    nodes: PositiveInt
    node_bandwidth: Rate | None
    batch_size: PositiveInt
    epochs: PositiveFloat
    images: PositiveInt
    precision: Literal["float32", "tf32", "bfloat16", "float16"]
    crossing_dtype: Literal["float32", "bfloat16", "float16"]
    check: bool
    against: str | None
    json: OutputFile | None

    def __post_init__(self) -> None:
        if self.check and self.against:
            raise ConfigurationError(
                "check=true compares with published numbers, against=FILE with a benchmark; give one"
            )


def parse_plan_settings(configuration: Mapping[str, Any]) -> PlanSettings:
    """Check a composed configuration. Raises ConfigurationError that names the key."""
    settings = from_mapping(PlanSettings, configuration, "")
    return replace(settings, network=settings.network.cut_into(settings.towers or settings.network.towers))
