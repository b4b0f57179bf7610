"""Convert weights: towers to one device's file or ONNX, files of others to towers, the authors' layers to a table."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any, Literal

import yaml

from alexnet_mp.checkpoint.convert.foreign import ForeignInput
from alexnet_mp.checkpoint.convert.onnx import save_onnx
from alexnet_mp.checkpoint.convert.single_device_file import load_single_device, save_single_device
from alexnet_mp.checkpoint.convert.weight_files import CAFFE_SUFFIX, TORCH_SUFFIXES
from alexnet_mp.checkpoint.files import load_checkpoint, save_checkpoint
from alexnet_mp.checkpoint.names import find_checkpoint
from alexnet_mp.common.cli import Configuration, run_command, show
from alexnet_mp.common.disk import write_files
from alexnet_mp.common.schema import PositiveInt, from_mapping
from alexnet_mp.common.text import count
from alexnet_mp.errors import ConfigurationError, explained
from alexnet_mp.network.authors.layers import read_authors_layers
from alexnet_mp.network.rows import Convention
from alexnet_mp.network.table import Network, parse_network
from alexnet_mp.training.authors_rates import read_authors_rates

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
    params: str | None = None
    image_size: PositiveInt = 224

    @property
    def foreign_input(self) -> ForeignInput:
        return ForeignInput(self.channels, self.input_std)


def run(configuration: Configuration) -> None:
    """Convert `source` to `out`, from or to a checkpoint: the kind of `source` and the name of `out` decide."""
    settings = from_mapping(ConvertSettings, configuration, "")
    source, out = Path(settings.source), Path(settings.out)
    if source.suffix.lower() == ".cfg":
        with explained(f"cannot write out={out}"):
            _from_layers(source, out, settings)
        return
    if settings.params is not None:
        raise ConfigurationError(f"params={settings.params} belongs to a layer definition of the authors, FILE.cfg")
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


def _from_layers(source: Path, out: Path, settings: ConvertSettings) -> None:
    """Two files of the authors' code to `network/NAME.yaml` and `recipe/NAME.yaml` beside out=NAME.yaml."""
    if settings.params is None or out.suffix != ".yaml":
        raise ConfigurationError(f"{source} is a layer definition; it needs params=FILE.cfg and out=FOLDER/NAME.yaml")
    if settings.network is not None or settings.dropout is not None or not settings.foreign_input.is_ours:
        raise ConfigurationError(f"{source} has no weights, which network=, dropout=, channels= and input_std= are for")
    network, learned = read_authors_layers(source, Path(settings.params), out.stem, settings.image_size)
    recipe = read_authors_rates(learned, out.stem)
    presets = {"network": network.to_mapping(), "recipe": asdict(recipe)}
    for path in (out.parent / group / out.name for group in presets):
        if path.exists():
            raise ConfigurationError(f"{path} exists already; nothing was written")
    for group, mapping in presets.items():
        text = f"# Made of {source.name} and {Path(settings.params).name} of the authors' code.\n{_as_yaml(mapping)}"
        write = partial(Path.write_text, data=text, encoding="utf-8")
        [path] = write_files(out.parent / group, {out.name: write})
        show(f"wrote {path}")
    show(
        f"Neither file says how large an image is, {settings.image_size} pixels here (image_size=), nor batches, "
        "augmentation and schedule, which are run #145's.\nIts learning rates are those of the end of a run: "
        f"{recipe.weights.learning_rate:g} for weights, {recipe.biases.learning_rate:g} for biases, and others for "
        f"{count(len(recipe.layers), 'layer')}.\n"
        f"python launch/describe.py {quote(f'--config-dir={out.parent}')} network={out.stem}"
    )


def _as_yaml(mapping: Mapping[str, Any]) -> str:
    """A preset as those of `conf` are written: a line for each value, and for each layer."""
    lines = []
    for key, value in mapping.items():
        layers = value if key == "layers" else {}
        lines += [f"{key}:", *map("  {}".format, _in_lines(layers))] if layers else _in_lines({key: value})
    return "\n".join(lines) + "\n"


def _in_lines(mapping: Mapping[str, Any]) -> list[str]:
    return [
        yaml.safe_dump({key: value}, default_flow_style=True, sort_keys=False, width=float("inf")).strip()[1:-1]
        for key, value in mapping.items()
    ]


main = partial(run_command, "convert", run)  # what launch/convert.py calls

if __name__ == "__main__":
    main()
