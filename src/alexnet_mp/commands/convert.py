"""Convert weights: a checkpoint's towers to one device's file, or such a file to a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_mp.checkpoint import load_checkpoint, save_checkpoint
from alexnet_mp.commands.entry import run_command
from alexnet_mp.conversion import Convention, load_single_device, save_single_device
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.table import load_network, parse_network
from alexnet_mp.strict import from_mapping


@dataclass(frozen=True)
class ConvertSettings:
    """The keys of `conf/convert.yaml`."""

    source: str
    out: str
    dropout: Convention
    network: str | None


def run(configuration: Mapping[str, Any]) -> None:
    """Convert `source` to `out`; which way follows from what `source` is."""
    settings = from_mapping(ConvertSettings, configuration, "")
    source, out = Path(settings.source), Path(settings.out)
    if not source.exists():
        raise ConfigurationError(f"source={source} does not exist")
    if out.exists():
        raise ConfigurationError(f"out={out} exists already; nothing was written")
    if source.is_dir():
        state_dict, description = load_checkpoint(source)
        network = parse_network(description["network"])
        save_single_device(out, state_dict, network, settings.dropout)
        print(f"wrote {out}: {network.name} for one device, dropout {settings.dropout}")
        return
    named = load_network(settings.network) if settings.network else None
    state_dict, network = load_single_device(source, named, settings.dropout)
    save_checkpoint(out, state_dict, network, {"converted_from": source.name}, timeout_seconds=60)
    print(f"wrote {out}: {network.name} in {network.towers} towers")


def main() -> None:
    """Entry point of `launch/convert.py`."""
    run_command("convert", run)


if __name__ == "__main__":
    main()
