"""Convert weights: a checkpoint's towers to one device's file, or such a file to a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_mp.checkpoint.files import load_checkpoint, save_checkpoint
from alexnet_mp.commands.entry import run_command, show
from alexnet_mp.conversion import Convention, load_single_device, save_single_device
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.table import Network, parse_network
from alexnet_mp.strict import from_mapping


@dataclass(frozen=True)
class ConvertSettings:
    """The keys of `conf/convert.yaml`."""

    source: str
    out: str
    dropout: Convention
    network: Network | None = None


def run(configuration: Mapping[str, Any]) -> None:
    """Convert `source` to `out`; which way follows from what `source` is."""
    named = parse_network(configuration["network"]) if "network" in configuration else None
    settings = from_mapping(ConvertSettings, configuration, "", ready={"network": named})
    source, out = Path(settings.source), Path(settings.out)
    if not source.exists():
        raise ConfigurationError(f"source={source} does not exist")
    if out.exists():
        raise ConfigurationError(f"out={out} exists already; nothing was written")
    try:
        _convert(source, out, settings.dropout, named)
    except OSError as error:
        raise ConfigurationError(f"cannot write out={out}: {error}") from error


def _convert(source: Path, out: Path, dropout: Convention, named: Network | None) -> None:
    if source.is_dir():
        state_dict, description = load_checkpoint(source)
        network = parse_network(description["network"])
        save_single_device(out, state_dict, network, dropout)
        show(f"wrote {out}: {network.name} for one device, dropout {dropout}")
        return
    state_dict, network = load_single_device(source, named, dropout)
    save_checkpoint(out, state_dict, network, {"converted_from": source.name}, timeout_seconds=60)
    show(f"wrote {out}: {network.name} in {network.towers} towers")


def main() -> None:
    """Entry point of `launch/convert.py`."""
    run_command("convert", run)


if __name__ == "__main__":
    main()
