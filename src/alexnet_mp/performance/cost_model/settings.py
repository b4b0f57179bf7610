"""The settings of `launch/plan.py`: the composed configuration, checked key by key."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from alexnet_mp.common.schema import from_mapping
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import Network, parse_network

IMAGENET_TRAIN = 1_281_167  # ILSVRC-2012's training images


@dataclass(frozen=True)
class PlanSettings:
    """The keys of `conf/plan.yaml`, which says what they mean."""

    network: Network
    towers: int | None
    device: str
    replicas: int
    nodes: int
    node_bandwidth: float | None
    batch_size: int
    epochs: float
    images: int
    precision: Literal["float32", "tf32", "bfloat16", "float16"]
    crossing_dtype: Literal["float32", "bfloat16", "float16"]
    check: bool
    against: str | None
    json: str | None


def parse_plan_settings(configuration: Mapping[str, Any]) -> PlanSettings:
    """Check a composed configuration. Raises ConfigurationError that names the key."""
    network = parse_network(configuration.get("network"))
    if isinstance(configuration.get("towers"), int):
        network = network.cut_into(configuration["towers"])
    settings = from_mapping(PlanSettings, configuration, "", ready={"network": network})
    network_cost(network)  # a window that does not fit is found here
    for name in ("replicas", "nodes", "node_bandwidth", "batch_size", "epochs", "images"):
        value = getattr(settings, name)
        if value is not None and value <= 0:
            raise ConfigurationError(f"{name} is {value}, must be positive")
    if settings.check and settings.against:
        raise ConfigurationError("check=true compares with published numbers, against=FILE with a benchmark; give one")
    return settings
