"""Convert weights: a checkpoint's towers to one device's file or to ONNX, and files of others to a checkpoint."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from alexnet_mp.checkpoint.convert.foreign import ForeignInput
from alexnet_mp.checkpoint.convert.onnx import save_onnx
from alexnet_mp.checkpoint.convert.single_device_file import load_single_device, save_single_device
from alexnet_mp.checkpoint.convert.weight_files import CAFFE_SUFFIX, TORCH_SUFFIXES
from alexnet_mp.checkpoint.files import load_checkpoint, save_checkpoint
from alexnet_mp.checkpoint.names import find_checkpoint
from alexnet_mp.common.cli import Configuration, run_command, show
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.common.text import count
from alexnet_mp.errors import ConfigurationError, explained
from alexnet_mp.network.rows import Convention
from alexnet_mp.network.table import Network, parse_network

_WRITERS = {".safetensors": save_single_device, ".onnx": save_onnx}


@dataclass(frozen=True)
class ConvertSettings:
    """The keys of `conf/convert.yaml`."""

    source: str
    out: str
    dropout: Convention | None = None
    channels: Literal["rgb", "bgr"] | None = None
    input_std: tuple[float, ...] | None = None
    network: Network | None = None

    @property
    def foreign_input(self) -> ForeignInput:
        return ForeignInput(self.channels, self.input_std)


def run(configuration: Configuration) -> None:
    """Convert `source` to `out`, from or to a checkpoint: the kind of `source` and the name of `out` decide."""
    settings = from_mapping(ConvertSettings, configuration, "")
    source, out = Path(settings.source), Path(settings.out)
    if not source.is_file():
        source = find_checkpoint(source)
    if out.exists():
        raise ConfigurationError(f"out={out} exists already; nothing was written")
    with explained(f"cannot write out={out}"):
        if source.is_dir():
            _from_checkpoint(source, out, settings)
        else:
            _from_file(source, out, settings)


def _from_checkpoint(source: Path, out: Path, settings: ConvertSettings) -> None:
    if settings.network is not None or not settings.foreign_input.is_ours:
        raise ConfigurationError(
            f"{source} is a checkpoint; network=, channels= and input_std= are for files from elsewhere"
        )
    save = _WRITERS.get(out.suffix.lower())
    if save is None:
        raise ConfigurationError(
            f"out={out}: weights are written as .safetensors, which safetensors.torch.load_file reads as a state dict, "
            "or as .onnx"
        )
    state_dict, description = load_checkpoint(source)
    network = parse_network(description["network"])
    dropout = settings.dropout or "authors"
    save(out, state_dict, network, dropout, description)
    show(f"wrote {out}: {network.name} for one device, dropout {dropout}")


def _from_file(source: Path, out: Path, settings: ConvertSettings) -> None:
    if out.suffix.lower() in (*_WRITERS, *TORCH_SUFFIXES, CAFFE_SUFFIX):
        raise ConfigurationError(
            f"{source} becomes a checkpoint, which is a folder; out={out} is named like a file, which a second command "
            "makes of that"
        )
    found = load_single_device(source, settings.network, settings.dropout, settings.foreign_input)
    description = {**found.about, "converted_from": source.name}
    save_checkpoint(out, found.state_dict, found.network, description, timeout_seconds=60)
    others = {theirs.rpartition(".")[0]: ours.rpartition(".")[0] for ours, theirs in found.names.items()}
    if found.shown:
        show(found.shown)
    if any(theirs != ours for theirs, ours in others.items()):
        show("\n".join(f"{theirs} is {ours}" for theirs, ours in others.items()))
    show(f"wrote {out}: {found.network.name} in {count(found.network.towers, 'tower')}")


main = partial(run_command, "convert", run)  # what launch/convert.py calls

if __name__ == "__main__":
    main()
