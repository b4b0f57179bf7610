"""Draws the first layer's kernels (the paper's Figure 3), every tower's in rows of their own."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.rows import Conv
from alexnet_mp.parallel.mesh import Mesh

MOST_COLUMNS = 16  # as in the paper's picture: 96 kernels, three rows of 16 a tower


def kernels_of_run(model: TowerModel, mesh: Mesh) -> dict[str, NDArray[np.uint8]]:
    """The sheet of all towers' kernels, by its name; every process calls it. Empty if they have no colors."""
    network, layer = model.network, model.network.first_layer
    if not isinstance(network.rows[layer], Conv) or network.image[0] not in (1, 3):
        return {}
    mine = torch.stack([kernels.cpu() for kernels in first_layer_kernels(model.state_dict(), layer)])
    everyone = torch.tensor(mesh.gather(mine.flatten().tolist())[: network.towers // len(mine)])  # replica 0's
    return {f"kernels/{layer}": kernel_sheet(list(everyone.view(network.towers, *mine.shape[1:])), scale=4)}


def first_layer_kernels(state_dict: Mapping[str, Tensor], layer: str) -> list[Tensor]:
    """The kernels of the `layer` that reads the image, [kernels, channels, height, width] of every tower in order.

    `state_dict` has all towers' parameters, as a checkpoint or `TowerModel.state_dict` names them.

    Raises ConfigurationError if the layer is no convolution.
    """
    name = re.compile(rf"towers\.(\d+)\.{re.escape(layer)}\.weight")
    found = {int(match[1]): state_dict[match[0]] for match in map(name.fullmatch, state_dict) if match}
    if not found or any(kernels.ndim != 4 for kernels in found.values()):
        raise ConfigurationError(f"{layer} is no convolution of these weights, so has no kernels")
    return [found[tower].detach() for tower in sorted(found)]


def kernel_sheet(kernels: Sequence[Tensor], scale: int) -> NDArray[np.uint8]:
    """The kernels of all towers as one picture, uint8 [height, width, 4]: the first tower's rows above the next one's.

    `kernels` has [kernels, channels, height, width] of every tower, of one channel (drawn in gray) or three (red,
    green, blue). Each kernel is scaled to its own range around zero: 0 is the gray 128, and its largest weight by
    magnitude, over all colors, is 1 or 255. So brightness can be compared within a kernel and not between two, and a
    dead kernel shows its noise. A weight is a square of `scale` pixels; what lies between kernels is transparent.

    Raises ConfigurationError for another number of channels.
    """
    channels = kernels[0].shape[1]
    if channels not in (1, 3):
        raise ConfigurationError(f"kernels of {channels} channels cannot be shown as colors: 1 or 3 can")
    gap = max(1, scale // 2)
    columns = max(_columns(len(each)) for each in kernels)
    blocks = [_block(each, scale, gap, columns) for each in kernels]
    between = np.zeros((4 * gap, blocks[0].shape[1], 4), dtype=np.uint8)
    return np.concatenate([part for block in blocks for part in (between, block)][1:])


def _block(kernels: Tensor, scale: int, gap: int, columns: int) -> NDArray[np.uint8]:
    weights = kernels.detach().float().cpu()
    largest = weights.abs().amax(dim=(1, 2, 3), keepdim=True)
    shades = torch.where(largest > 0, weights / largest, 0.0) * 127 + 128
    tiles = shades.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()  # [kernels, height, width, channels]
    tiles = np.broadcast_to(tiles, (*tiles.shape[:3], 3)).repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width, _ = tiles.shape
    rows = -(-count // columns)
    sheet = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), dtype=np.uint8)
    for place, tile in enumerate(tiles):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
        sheet[top : top + height, left : left + width] = np.dstack([tile, np.full((height, width), 255, np.uint8)])
    return sheet


def _columns(count: int) -> int:
    """As many as make whole rows, up to MOST_COLUMNS; if only narrow rows would be whole, the last one is not."""
    whole = max(width for width in range(1, min(count, MOST_COLUMNS) + 1) if count % width == 0)
    return whole if whole > MOST_COLUMNS // 4 else min(count, MOST_COLUMNS)
