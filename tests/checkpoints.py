"""Small checkpoints for tests."""

from functools import cache

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
