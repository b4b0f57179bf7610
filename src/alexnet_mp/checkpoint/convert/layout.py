"""Between towers and a single device: regroup `towers.<t>.<layer>.*` into Caffe's layout and back, never rescaling."""

import re
from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.rows import (
    BatchNorm,
    Classifier,
    Conv,
    FullyConnected,
    Local,
    WeightedRow,
    reads_of,
)
from alexnet_mp.network.table import Network
from alexnet_mp.parallel.links import peers_of

BATCH_NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")

_NAME = re.compile(r"towers\.(\d+)\.([^.]+)\.([^.]+)")


def to_single_device(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Regroup the parameters of all towers for one device, in Caffe's layout, tower 0's channels first.

    For the paper's network: `conv1.weight` [96,3,11,11], `conv2.weight` [256,48,5,5] (groups=2), `conv3.weight`
    [384,256,3,3], `conv4.weight` [384,192,3,3] and `conv5.weight` [256,192,3,3] (groups=2), `fc6.weight` [4096,9216],
    `fc7.weight` [4096,4096], `fc8.weight` [1000,4096], biases beside. It only regroups, so it is right for gradients
    too.

    Raises ConfigurationError for a name that is not `towers.<t>.<layer>.<tensor>`, and where a tower is missing.
    """
    single = {}
    for layer, towers in _by_layer(state_dict).items():
        if "own_weight" in towers[0]:
            single[f"{layer}.weight"] = _join_columns(towers)
        for name in towers[0]:
            if name not in ("own_weight", "peer_weight"):
                # One block of kernels or units a tower; the classifier's bias is on tower 0 alone.
                single[f"{layer}.{name}"] = torch.cat([tensors[name] for tensors in towers if name in tensors])
    return single


def from_single_device(state_dict: Mapping[str, Tensor], network: Network) -> dict[str, Tensor]:
    """The inverse of `to_single_device`: cut a single device's parameters up for the towers of `network`.

    Raises ConfigurationError where a tensor is missing, left over, or of another shape than the table's.
    """
    check_single_device(state_dict, network)
    count = network.towers
    towers: dict[str, Tensor] = {}
    for layer, row in network.layer_rows.items():
        if isinstance(row, BatchNorm):
            for name in BATCH_NORM_TENSORS:
                for t, block in enumerate(state_dict[f"{layer}.{name}"].chunk(count)):
                    towers[f"towers.{t}.{layer}.{name}"] = block.clone()
        if not isinstance(row, WeightedRow):
            continue
        weight, bias = state_dict[f"{layer}.weight"], state_dict[f"{layer}.bias"]
        if isinstance(row, Classifier):
            towers["towers.0." + f"{layer}.bias"] = bias.clone()
            for t, own in enumerate(weight.chunk(count, dim=1)):
                towers[f"towers.{t}.{layer}.own_weight"] = own.clone()
            continue
        for t, (block, bias_block) in enumerate(zip(weight.chunk(count), bias.chunk(count), strict=True)):
            prefix = f"towers.{t}.{layer}"
            towers[f"{prefix}.bias"] = bias_block.clone()
            if reads_of(row) != "both":
                towers[f"{prefix}.weight"] = block.clone()
                continue
            columns = block.chunk(count, dim=1)
            towers[f"{prefix}.own_weight"] = columns[t].clone()
            if count > 1:
                towers[f"{prefix}.peer_weight"] = torch.cat([columns[peer] for peer in peers_of(t, count)], dim=1)
    return towers


def single_device_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """The names and shapes that `to_single_device` gives for a network table."""
    shapes: dict[str, tuple[int, ...]] = {}
    costs = network_cost(network)
    for layer, row in network.layer_rows.items():
        inputs = costs.row(layer).input_shape
        columns = network.towers if reads_of(row) == "both" else 1
        if isinstance(row, Conv):
            shapes[f"{layer}.weight"] = (network.towers * row.kernels, columns * inputs[0], row.size, row.size)
        elif isinstance(row, Local):
            positions = costs.row(layer).output_shape[1:]
            shapes[f"{layer}.weight"] = (row.kernels, inputs[0], row.size, row.size, *positions)
        elif isinstance(row, FullyConnected):
            shapes[f"{layer}.weight"] = (network.towers * row.units, columns * prod(inputs))
        elif isinstance(row, Classifier):
            shapes[f"{layer}.weight"] = (network.classes, network.towers * prod(inputs))
        elif isinstance(row, BatchNorm):
            shapes |= {f"{layer}.{name}": (network.towers * inputs[0],) for name in BATCH_NORM_TENSORS}
        if isinstance(row, WeightedRow):
            unshared = costs.row(layer).output_shape[1:] if isinstance(row, Local) else ()
            shapes[f"{layer}.bias"] = (*shapes[f"{layer}.weight"][:1], *unshared)
    return shapes


def _by_layer(state_dict: Mapping[str, Tensor]) -> dict[str, list[dict[str, Tensor]]]:
    """layer -> for each tower, its tensors by name."""
    found: dict[str, dict[int, dict[str, Tensor]]] = {}
    for key, tensor in state_dict.items():
        match = _NAME.fullmatch(key)
        if not match:
            raise ConfigurationError(f"{key!r} is not a tower's tensor: expected towers.<t>.<layer>.<tensor>")
        found.setdefault(match[2], {}).setdefault(int(match[1]), {})[match[3]] = tensor
    count = 1 + max((t for towers in found.values() for t in towers), default=0)
    for layer, towers in found.items():
        missing = [t for t in range(count) if t not in towers]
        if count == 1 and "peer_weight" in towers[0]:
            missing, count = [1], 2
        if missing:
            raise ConfigurationError(
                f"{layer}: tower {missing} of {count} is missing; to_single_device needs every tower"
            )
    return {layer: [towers[t] for t in range(count)] for layer, towers in found.items()}


def _join_columns(towers: list[dict[str, Tensor]]) -> Tensor:
    """[units of all towers, inputs of all towers] of a two-input layer, or [classes, inputs] of the sum."""
    if len(towers) == 1 or "peer_weight" not in towers[0]:
        return torch.cat([tensors["own_weight"] for tensors in towers], dim=1)
    blocks = []
    for t, tensors in enumerate(towers):
        peers = tensors["peer_weight"].chunk(len(towers) - 1, dim=1)
        blocks.append(torch.cat([*peers[:t], tensors["own_weight"], *peers[t:]], dim=1))
    return torch.cat(blocks)


def check_single_device(state_dict: Mapping[str, Tensor], network: Network) -> None:
    """Raise ConfigurationError where a tensor is missing, left over, or of another shape than the table's."""
    expected = single_device_shapes(network)
    wrong = [f"{name} is missing" for name in expected if name not in state_dict]
    wrong += [f"{name} is not in the network table" for name in state_dict if name not in expected]
    wrong += [
        f"{name} is {list(state_dict[name].shape)}, the table wants {list(shape)}"
        for name, shape in expected.items()
        if name in state_dict and tuple(state_dict[name].shape) != shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 4} more)" if len(wrong) > 4 else ""
        raise ConfigurationError("these weights do not fit the network: " + "; ".join(wrong[:4]) + more)
