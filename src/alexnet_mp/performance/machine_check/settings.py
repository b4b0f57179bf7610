"""The settings of `check`: the composed configuration, checked key by key."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from alexnet_mp.common.schema import OutputFile, PositiveFloat, PositiveInt, from_mapping
from alexnet_mp.network.table import Network


@dataclass(frozen=True)
class CheckSettings:
    """The keys of `conf/check.yaml`, which says what they mean."""

    network: Network
    towers: int | None
    placement: str
    device: str
    batch_size: PositiveInt
    rounds: PositiveInt
    threads: PositiveInt | None
    seed: int
    timeout_seconds: PositiveFloat
    json: OutputFile | None


def parse_check_settings(configuration: Mapping[str, Any]) -> CheckSettings:
    """Check a composed configuration. Raises ConfigurationError that names the key, unknown ones included."""
    settings = from_mapping(CheckSettings, configuration, "")
    return (
        settings if settings.towers is None else replace(settings, network=settings.network.cut_into(settings.towers))
    )
