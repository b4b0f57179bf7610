"""Small checkpoints for tests."""

from functools import cache

import torch
from torch import Tensor

from alexnet_mp import build_model, load_network
from alexnet_mp.network.table import Network, parse_network


@cache
def narrow_network() -> Network:
    """Two towers of two kernels and two units a layer."""
    table = load_network("small").to_mapping()
    for name, row in table["layers"].items():
        for count in ("kernels", "units"):
            if count in row and name != "fc8":
                row[count] = 2
    return parse_network(table)


@cache
def weights() -> dict[str, Tensor]:
    """The initial weights of `narrow_network`."""
    return dict(build_model(narrow_network()).state_dict())


def narrowed(preset: str, image: int | None = None) -> Network:
    """A preset with a sixteenth of its kernels and a 64th of its units, and images `image` pixels wide."""
    table = load_network(preset).to_mapping()
    for row in table["layers"].values():
        for count, share in (("kernels", 16), ("units", 64)):
            if count in row:
                row[count] = max(2, row[count] // share)
    sides = [image, image] if image else table["image"][1:]
    return parse_network({**table, "classes": 10, "image": [3, *sides]})


def random_weights(network: Network, seed: int = 0) -> dict[str, Tensor]:
    """A state dict whose every tensor differs between towers and matters to the logits, which are about 1."""
    generator = torch.Generator().manual_seed(seed)
    state = dict(build_model(network).state_dict())
    for name, tensor in state.items():
        drawn = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim == 1 and not name.endswith("bias"):  # of batch normalization
            state[name] = 0.1 * drawn if name.endswith("mean") else drawn.abs() + 0.5
        else:
            state[name] = drawn * (2 / (tensor[0].numel() if tensor.ndim > 1 else 100)) ** 0.5
    return state
