"""Builds a network from Python, without a command: `alexnet_mp.build_model`."""

from pathlib import Path

import torch
import torch.distributed as dist

from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.table import Network, load_network
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.mesh import make_mesh
from alexnet_mp.parallel.placement import choose_placement


def build_model(
    network: Network | str | Path,
    placement: str = "simulated",
    device: str = "cpu",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> TowerModel:
    """Build a network with its initial weights, ready to train or to load a checkpoint into.

    Args:
        network: a `Network`, the name of a preset, or the path of a YAML table.
        placement: `simulated` (all towers on one device), `two_devices` (one GPU a tower), `distributed` (one process a
            tower; call `torch.distributed.init_process_group` first) or `auto`.
        device: `cpu`, `cuda` or `auto`.
        seed: keys the initial weights and the dropout masks.
        dtype: of the parameters; the values are drawn in float32 whatever the dtype.

    Returns:
        A module from images [N, channels, height, width] (float, mean already subtracted) to logits [N, classes], the
        same on every tower. In training mode, see `TowerModel.forward` about dropout.

    Raises:
        ConfigurationError (a ValueError): the table or the placement cannot be, with the numbers and what to do.

    What crosses between two devices is not tested here, as the commands do before they begin; `launch/check.py` does.
    """
    table = network if isinstance(network, Network) else load_network(network)
    launch = _launch() if placement in ("distributed", "auto") else Launch()
    chosen = choose_placement(placement, device, table.towers, launch)
    if launch.world_size > 1 and not dist.is_initialized():
        raise ConfigurationError(
            f"placement={placement} in a run of {launch.world_size} processes needs their process group: "
            "call torch.distributed.init_process_group first"
        )
    return TowerModel(table, chosen, make_mesh(chosen, timeout_seconds=600).link(), seed, dtype)


def _launch() -> Launch:
    if not dist.is_initialized():
        return Launch.from_environment()
    return Launch.from_environment(rank=dist.get_rank(), world_size=dist.get_world_size())
