"""Regroups `towers.<t>.<layer>.*` into Caffe's layout for a single device and back, never rescaling."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.rows import RowCost, Shape
from alexnet_mp.network.table import Network
from alexnet_mp.parallel.links import peers_of

_NAME = re.compile(r"towers\.(\d+)\.([^.]+)\.([^.]+)")


def to_single_device(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Regroup the parameters of all towers for one device, in Caffe's layout, tower 0's channels first.

    For the paper's network: `conv1.weight` [96,3,11,11], `conv2.weight` [256,48,5,5] (groups=2), `conv3.weight`
    [384,256,3,3], `conv4.weight` [384,192,3,3] and `conv5.weight` [256,192,3,3] (groups=2), `fc6.weight` [4096,9216],
    `fc7.weight` [4096,4096], `fc8.weight` [1000,4096], biases beside. It only regroups, so it is right for gradients
    too.

    Raises ConfigurationError for a name that is not `towers.<t>.<layer>.<tensor>`, and if a tower is missing.
    """
    single = {}
    for layer, towers in _by_layer(state_dict).items():
        if "own_weight" in towers[0]:
            single[f"{layer}.weight"] = _join_columns(towers)
        for name in towers[0]:
            if name not in ("own_weight", "peer_weight"):
                # One block of kernels or units a tower; the classifier's bias is on tower 0 alone.
                single[f"{layer}.{name}"] = torch.cat([tensors[name] for tensors in towers if name in tensors])
    return {name: tensor.contiguous() for name, tensor in single.items()}


def from_single_device(state_dict: Mapping[str, Tensor], network: Network) -> dict[str, Tensor]:
    """The inverse of `to_single_device`: cut a single device's parameters up for the towers of `network`.

    Raises ConfigurationError if a tensor is missing, left over, or of another shape than the table's.
    """
    check_single_device(state_dict, network)
    towers: dict[str, Tensor] = {}
    for cost in network_cost(network).rows:
        for t in range(network.towers):
            for name in _tensors_of_a_tower(cost):
                if name != "peer_weight" and (t == 0 or name != "bias" or not cost.bias_on_tower_0_only):
                    towers |= _share(cost, name, t, network.towers, state_dict)
    return towers


def single_device_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """The names and shapes that `to_single_device` gives for a network table."""
    shapes: dict[str, tuple[int, ...]] = {}
    for cost in network_cost(network).rows:
        blocks = 1 if cost.bias_on_tower_0_only else network.towers  # of outputs, one below the other
        for name, (outputs, *rest) in _tensors_of_a_tower(cost).items():
            if name == "own_weight":
                shapes[f"{cost.name}.weight"] = (blocks * outputs, network.towers * rest[0], *rest[1:])
            elif name != "peer_weight":
                shapes[f"{cost.name}.{name}"] = (blocks * outputs, *rest)
    return shapes


def _tensors_of_a_tower(cost: RowCost) -> dict[str, Shape]:
    return {**cost.parameters_of_a_tower, **cost.buffers_of_a_tower}


def _share(cost: RowCost, name: str, tower: int, towers: int, single: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `tower` has of a single device's tensor; of one that reads both towers, its own weight and its peers'."""
    prefix = f"towers.{tower}.{cost.name}"
    whole = single[f"{cost.name}.{'weight' if name == 'own_weight' else name}"]
    block = whole if cost.bias_on_tower_0_only else whole.chunk(towers)[tower]
    if name != "own_weight":
        return {f"{prefix}.{name}": block.clone()}
    columns = block.chunk(towers, dim=1)
    own = {f"{prefix}.own_weight": columns[tower].clone()}
    if "peer_weight" not in cost.parameters_of_a_tower:
        return own
    peers = [columns[peer] for peer in peers_of(tower, towers)]
    return {**own, f"{prefix}.peer_weight": torch.cat(peers, dim=1)}


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
    """Raise ConfigurationError if a tensor is missing, left over, or of another shape than the table's."""
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
