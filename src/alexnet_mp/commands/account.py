"""Count networks layer by layer and draw it: python launch/account.py networks=[paper,vgg16] out=docs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_mp.common.cli import run_command, show
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.table import load_network


@dataclass(frozen=True)
class AccountSettings:
    """The keys of `conf/account.yaml`."""

    networks: tuple[str, ...]
    out: str
    charts: bool


def run(configuration: Mapping[str, Any]) -> None:
    """Write the page, its CSV files and its charts; print their paths."""
    from alexnet_mp.analysis.results.layer_costs import (
        write_page,  # matplotlib: not before the networks are known to be right
    )

    settings = from_mapping(AccountSettings, configuration, "")
    networks = [load_network(name) for name in settings.networks]
    names = [network.name for network in networks]
    if not names or len(set(names)) < len(names):
        raise ConfigurationError(f"networks is {names}; name at least one, each once")
    for path in write_page(networks, Path(settings.out), settings.charts):
        show(f"wrote {path}")


def main() -> None:
    """Entry point of `launch/account.py`."""
    run_command("account", run)


if __name__ == "__main__":
    main()
