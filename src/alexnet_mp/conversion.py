"""Files for a single device: weights as one safetensors file in Caffe's layout, with either convention of dropout."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open
from torch import Tensor

from alexnet_mp.checkpoint.tensors import write_tensors
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.rows import BatchNorm, Dropout, WeightedRow, rows_within
from alexnet_mp.network.table import Network, parse_network
from alexnet_mp.single_device import from_single_device, to_single_device

Convention = Literal["authors", "inverted"]


def save_single_device(path: Path, state_dict: Mapping[str, Tensor], network: Network, dropout: Convention) -> None:
    """Write the towers' weights as one device's, for the authors' dropout or for PyTorch's.

    With the authors' dropout, evaluation halves what comes out of a dropout row (p = 0.5). PyTorch's does not, so for
    it the weights that read from there, fc7's and fc8's, are halved instead (times 1 - p); the file's metadata says
    so.
    """
    scales = dropout_scales(network, dropout)
    single = {name: tensor * scales.get(name, 1.0) for name, tensor in to_single_device(state_dict).items()}
    scaled = ", ".join(f"{name} x {scale:g}" for name, scale in scales.items())
    metadata = {
        "format": "alexnet_mp single device 1",
        "dropout": dropout,
        "scaled": scaled or "nothing",
        "network": json.dumps(network.to_mapping()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, single, metadata)


def load_single_device(path: Path, network: Network | None, dropout: Convention) -> tuple[dict[str, Tensor], Network]:
    """Read one device's weights and cut them up for the towers; the inverse of `save_single_device`.

    What the file's metadata says about network and dropout goes before the arguments, which are for files from
    elsewhere. Raises ConfigurationError where the file cannot be read, no network is known, or the shapes are not the
    table's.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            single = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(f"cannot read {path} as safetensors: {error}") from error
    if "network" in metadata:
        try:
            network = parse_network(json.loads(metadata["network"]))
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"{path}: the network table in its metadata: {error}") from error
    if network is None:
        raise ConfigurationError(
            f"{path} does not say which network it holds; add network=NAME, for example network=paper"
        )
    convention: Convention = "inverted" if metadata.get("dropout", dropout) == "inverted" else "authors"
    scales = dropout_scales(network, convention)
    unscaled = {name: tensor / scales.get(name, 1.0) for name, tensor in single.items()}
    return from_single_device(unscaled, network), network


def dropout_scales(network: Network, convention: Convention) -> dict[str, float]:
    """Factors that turn the table's weights into weights for `convention`, by name: the layers after dropout.

    Raises ConfigurationError where batch normalisation stands between dropout and the next layer with weights, and
    where branches or an auxiliary classifier do, so that several layers read what comes out of it.
    """
    scales: dict[str, float] = {}
    factor, dropped = 1.0, ""
    inside = {full: name for name, row in network.rows.items() for full in rows_within(name, row) if full != name}
    for name, row in network.layer_rows.items():
        if isinstance(row, Dropout) and row.inverted != (convention == "inverted"):
            factor *= 1 - row.p if convention == "inverted" else 1 / (1 - row.p)
            dropped = name
        elif factor != 1.0 and inside.get(name) != inside.get(dropped):
            raise ConfigurationError(f"{inside[name]} is not the only one to read {dropped}, whose scale would change")
        elif isinstance(row, BatchNorm) and factor != 1.0:
            raise ConfigurationError(
                f"{name} normalises what comes out of dropout; weights cannot make up for its scale"
            )
        elif isinstance(row, WeightedRow):
            if factor != 1.0:
                scales[f"{name}.weight"] = factor
            factor = 1.0
    return scales
