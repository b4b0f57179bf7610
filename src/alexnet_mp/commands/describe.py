"""Print what a network costs, layer by layer: python launch/describe.py network=paper [json=PATH]."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_mp.common.cli import run_command, show
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.describe import as_text, describe
from alexnet_mp.network.table import Network, parse_network

OF_TRAINING = ("recipe", "crossing_dtype")  # what an ablation may change besides, which costs the same


@dataclass(frozen=True)
class DescribeSettings:
    """The keys of `conf/describe.yaml`."""

    network: Network
    towers: int | None
    json: str | None


def run(configuration: Mapping[str, Any]) -> None:
    """Print the table; write the same numbers as JSON where `json` says."""
    network = parse_network(configuration.get("network"))
    of_network = {key: value for key, value in configuration.items() if key not in OF_TRAINING}
    settings = from_mapping(DescribeSettings, of_network, "", ready={"network": network})
    description = describe(network.cut_into(settings.towers) if settings.towers is not None else network)
    show(as_text(description))
    if settings.json:
        try:
            Path(settings.json).write_text(json.dumps(description, indent=2) + "\n")
        except OSError as error:
            raise ConfigurationError(f"cannot write json={settings.json}: {error}") from error


def main() -> None:
    """Entry point of `launch/describe.py`."""
    run_command("describe", run)


if __name__ == "__main__":
    main()
