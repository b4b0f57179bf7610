"""Reads and writes weights for a single device as one safetensors file in Caffe's layout."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet_mp.checkpoint.convert.dropout import dropout_scales
from alexnet_mp.checkpoint.convert.foreign import ForeignInput, as_read_by_us, as_shown, renamed, squeezed
from alexnet_mp.checkpoint.convert.layout import check_single_device, from_single_device, to_single_device
from alexnet_mp.checkpoint.convert.weight_files import CAFFE_SUFFIX, read_weights
from alexnet_mp.checkpoint.files import write_tensors
from alexnet_mp.common.text import printable
from alexnet_mp.errors import ConfigurationError, explained
from alexnet_mp.network.rows import Convention
from alexnet_mp.network.table import Network, parse_network

ABOUT = ("class_names", "input")  # of a checkpoint's description, what goes with its weights wherever they go


@dataclass(frozen=True, eq=False)
class Imported:
    """Weights for the towers of `network`, and what the file says about them: class names and the scale of the input.

    `names` has, for each tensor on a single device, the name that it had in the file. `shown` says what a file
    from elsewhere was taken for.
    """

    state_dict: dict[str, Tensor]
    network: Network
    about: dict[str, Any]
    names: dict[str, str]
    shown: str


def save_single_device(
    path: Path,
    state_dict: Mapping[str, Tensor],
    network: Network,
    dropout: Convention,
    description: Mapping[str, Any] | None = None,
) -> None:
    """Write the towers' weights as one device's, for the authors' dropout or for PyTorch's (see `dropout_scales`).

    The file's metadata has the network table, which weights were scaled, and of a checkpoint's `description` the class
    names and the scale of the input.
    """
    scales = dropout_scales(network, dropout)
    metadata = {
        "format": "alexnet_mp single device 1",
        "dropout": dropout,
        "scaled": ", ".join(f"{name} x {scale:g}" for name, scale in scales.items()) or "nothing",
        "network": json.dumps(network.to_mapping()),
        "about": json.dumps(about(description or {})),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, scaled(to_single_device(state_dict), scales), metadata)


def load_single_device(
    path: Path, network: Network | None, dropout: Convention | None, given: ForeignInput | None = None
) -> Imported:
    """Read one device's weights and cut them up for the towers; the inverse of `save_single_device`.

    A file of ours says its network and dropout in its metadata. The arguments are for files from elsewhere, with names
    of any kind (see `renamed`), some of which show them (see `as_shown`); dropout is the authors' if it is None.
    Half-precision weights become float32. Raises ConfigurationError if the file cannot be read, no network is known, an
    argument contradicts the metadata, layers or shapes are not the table's, or a weight is not finite.
    """
    weights, metadata = read_weights(path)
    given, shown = given or ForeignInput(), ""
    description: dict[str, Any] = {}
    if "network" in metadata:
        refused = (ConfigurationError, ValueError, RecursionError)
        with explained(f"{path}: the network table in its metadata", *refused):
            said = parse_network(json.loads(metadata["network"]))
            description = about(json.loads(metadata.get("about", "{}")))
        if not given.is_ours:
            raise ConfigurationError(f"{path} is a file of this library, which needs no channels= and no input_std=")
        if network not in (None, said):
            raise ConfigurationError(f"{path} holds {said.name} by its metadata; leave network= away")
        network = said
    else:
        is_caffes = path.suffix.lower() == CAFFE_SUFFIX
        network, dropout, given, shown = as_shown(weights, is_caffes, network, dropout, given)
        description = {"input": {"pixel_divisor": 1.0, "mean": "pixel"}} if shown and not is_caffes else {}
    if network is None:
        example = "bvlc_alexnet" if shown else "paper"
        raise ConfigurationError(f"{path} does not say which network it holds; add network=NAME, as network={example}")
    weights = squeezed(weights, network)
    names = renamed(weights, network)
    single = {name: weights[theirs] for name, theirs in names.items()}
    check_single_device(single, network)  # before a single number is touched: a tensor may claim to be huge
    for name, tensor in single.items():
        if not tensor.is_floating_point():
            raise ConfigurationError(f"{path}: {printable(names[name])} is {tensor.dtype}, not floating-point numbers")
        single[name] = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
        if wrong := int((~single[name].isfinite()).sum()):
            what = f"{wrong:,} of the {tensor.numel():,} numbers of {printable(names[name])}"
            raise ConfigurationError(f"{path}: {what} are NaN or infinite; take weights from before that happened")
    if dropout is not None and metadata.get("dropout", dropout) != dropout:
        raise ConfigurationError(
            f"{path} is for dropout={metadata['dropout']:.20} by its metadata; leave dropout= away"
        )
    convention: Convention = "inverted" if metadata.get("dropout", dropout) == "inverted" else "authors"
    for name, scale in dropout_scales(network, convention).items():
        single[name] = single[name] / scale
    single = as_read_by_us(single, network, given)
    return Imported(from_single_device(single, network), network, description, names, shown)


def scaled(single: Mapping[str, Tensor], scales: Mapping[str, float]) -> dict[str, Tensor]:
    """The tensors, those that have a scale multiplied by it."""
    return {name: tensor * scales[name] if name in scales else tensor for name, tensor in single.items()}


def about(description: object) -> dict[str, Any]:
    """Of a checkpoint's description, what goes with its weights wherever they go."""
    if not isinstance(description, Mapping):
        raise ConfigurationError(f"a description must be a mapping, not {description!r:.50}")
    return {key: description[key] for key in ABOUT if key in description}
