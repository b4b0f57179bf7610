"""The settings of `check`: the composed configuration, checked key by key."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alexnet_mp.common.schema import PositiveFloat, PositiveInt, from_mapping
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import Network, parse_network


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
    json: str | None


def parse_check_settings(configuration: Mapping[str, Any]) -> CheckSettings:
    """Check a composed configuration. Raises ConfigurationError that names the key, unknown ones included."""
    network = parse_network(configuration.get("network"))
    settings = from_mapping(CheckSettings, configuration, "", ready={"network": network})
    if settings.towers is not None:
        settings = replace(settings, network=network.cut_into(settings.towers))
    network_cost(settings.network)  # a window that does not fit is found here, before any process waits for another
    if settings.json and not Path(settings.json).absolute().parent.is_dir():
        raise ConfigurationError(f"json={settings.json}: there is no folder {Path(settings.json).absolute().parent}")
    return settings
