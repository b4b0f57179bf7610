"""Print what a network costs, layer by layer, or write it for several: python launch/describe.py network=paper."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet_mp.common.cli import Configuration, compose, run_command, show
from alexnet_mp.common.disk import write_json
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.describe import describe, layer_table
from alexnet_mp.network.table import Network, load_network

if TYPE_CHECKING:
    from alexnet_mp.training.initial_logits import InitialLogits

# What a recipe, data, an experiment or an ablation say besides, which costs the same.
OF_TRAINING = (
    "recipe",
    "data",
    "crossing_dtype",
    "experiment_name",
    "log_every_steps",
    "keep_checkpoints",
    "training_error",
)


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
    if "data" in configuration:
        found = _initial_logits(configuration)
        show(f"\n{found.in_words()}")
        description["initial_logits"] = asdict(found)
    if settings.json:
        write_json(settings.json, description)


def _initial_logits(configuration: Configuration) -> "InitialLogits":
    if "name" not in configuration.get("recipe", {}):  # an ablation may have put a part of one there
        raise ConfigurationError(
            "data=NAME measures the initial logits, which depend on a recipe's pixel scale: add recipe=NAME, or give "
            "experiment=NAME in place of both"
        )
    from alexnet_mp.training.initial_logits import initial_logits  # torch: slow to import
    from alexnet_mp.training.train import prepare_run

    given = {key: configuration[key] for key in (*OF_TRAINING, "network", "towers") if key in configuration}
    # Their checksums are for a training that reads all of them.
    given["data"] = {**given["data"], "verify": False}
    return initial_logits(prepare_run({**compose("train", []), **given, "placement": "simulated", "device": "cpu"}))


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
