"""Print what a network costs, layer by layer, or write it for several: python launch/describe.py network=paper."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from alexnet_mp.common.cli import Configuration, run_command, show
from alexnet_mp.common.disk import write_json
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.describe import describe, layer_table
from alexnet_mp.network.table import Network, load_network

OF_TRAINING = ("recipe", "crossing_dtype")  # what an ablation may change besides, which costs the same


@dataclass(frozen=True)
class DescribeSettings:
    """The keys of `conf/describe.yaml`."""

    network: Network
    towers: int | None
    json: str | None
    networks: tuple[str, ...] | None
    out: str | None
    charts: bool

    def __post_init__(self) -> None:
        if (self.networks is None) != (self.out is None):
            raise ConfigurationError("networks=[NAME,NAME] and out=FOLDER go together: give both or none of them")
        if self.networks is not None and (self.towers, self.json) != (None, None):
            raise ConfigurationError("towers and json are of one network: give network=NAME in place of networks")


def run(configuration: Configuration) -> None:
    """Print the table, and write it as JSON if asked; or write the page of several networks and print its paths."""
    of_network = {key: value for key, value in configuration.items() if key not in OF_TRAINING}
    settings = from_mapping(DescribeSettings, of_network, "")
    if settings.networks is not None and settings.out is not None:
        _write_page(settings.networks, Path(settings.out), settings.charts)
        return
    network = settings.network
    description = describe(network.cut_into(settings.towers) if settings.towers is not None else network)
    show(layer_table(description))
    if settings.json:
        write_json(settings.json, description)


def _write_page(names: tuple[str, ...], out: Path, charts: bool) -> None:
    networks = [load_network(name) for name in names]
    if not names or len({network.name for network in networks}) < len(names):
        raise ConfigurationError(f"networks is [{', '.join(names)}]; name at least one, each once")
    from alexnet_mp.analysis.results.layer_costs import write_layer_costs  # matplotlib: slow to import

    for path in write_layer_costs(networks, out, charts):
        show(f"wrote {path}")


main = partial(run_command, "describe", run)  # what launch/describe.py calls

if __name__ == "__main__":
    main()
