"""Measures how colorful the first layer's kernels (the paper's Figure 3) are, tower by tower."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import prod

import numpy as np
import torch
from torch import Tensor

from alexnet_mp.common.rng import keyed_generator
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.layers.weighted import Convolution, OwnLayer, initialize
from alexnet_mp.network.rows import Conv
from alexnet_mp.network.table import Network

DEAD_SHARE = 0.05  # of the largest norm: a kernel below that has learned nothing, weight decay has shrunk its noise
_PERMUTATIONS = 9_999


@dataclass(frozen=True)
class Separation:
    """How far two towers' kernels are apart in colorfulness.

    `auc` is the probability that a kernel of the tower `more` is more colorful than one of `less`, equal ones counted
    half: 0.5 for none, 1 for complete. It is never below 0.5, as which tower is which was chosen by it; `p_value`
    allows for that. `medians` and `counted` (kernels that are not dead) have one entry a tower; `difference` is that of
    the medians, `more` minus `less`.
    """

    auc: float
    p_value: float
    more: int
    less: int
    difference: float
    medians: tuple[float, ...]
    counted: tuple[int, ...]


def initial_kernels(network: Network, seed: int) -> list[Tensor]:
    """The first layer's kernels of every tower before the first step of a run, whose `seed` keys them.

    Raises ConfigurationError if the layer that reads the image is no convolution.
    """
    name = network.first_layer
    row = network.rows[name]
    if not isinstance(row, Conv):
        raise ConfigurationError(f"network {network.name}: its first layer {name} is no convolution, so has no kernels")
    shape = (row.kernels, network.image[0], row.size, row.size)
    towers = []
    for tower in range(network.towers):
        layer = OwnLayer(Convolution(row.stride, row.pad), shape)
        with torch.no_grad():
            initialize(layer, row.std, prod(shape[1:]), row.bias, keyed_generator(seed, "weights", name, tower))
        towers.append(layer.weight.detach())
    return towers


def colorfulness(towers: Sequence[Tensor]) -> list[Tensor]:
    """The share of each kernel's energy that lies off the gray axis, float64 [kernels] of every tower.

    Of `towers`, each [kernels, channels, height, width], it is ||w - m||^2 / ||w||^2, m the mean of w over its
    channels: 0 if the color planes are equal, 1 if they add up to nothing at every place (red minus green). It
    has no unit and does not depend on a kernel's size or sign. Noise that is the same in all channels of three has 2/3
    on average, so an untrained kernel is not gray. A kernel of one color alone has 2/3 too.

    NaN for a dead kernel, of which only noise would be measured: one with a norm below DEAD_SHARE of the largest norm
    among the kernels of all towers. One that died early without weight decay keeps its norm, and counts.
    """
    norms = [kernels.double().flatten(1).norm(dim=1) for kernels in towers]
    smallest = DEAD_SHARE * max(float(norm.max()) for norm in norms)
    shares = []
    for kernels, norm in zip(towers, norms, strict=True):
        weights = kernels.double()
        off_gray = (weights - weights.mean(dim=1, keepdim=True)).square().flatten(1).sum(dim=1)
        dead = (norm < smallest) | (norm == 0)
        shares.append(torch.where(dead, torch.nan, off_gray / norm.square()))
    return shares


def separation(towers: Sequence[Tensor], seed: int = 0, draws: int = _PERMUTATIONS) -> Separation:
    """How far apart the towers are in colorfulness, from one tensor [kernels] of it a tower; NaN is left out.

    Of more than two towers, the pair that is furthest apart. The p-value is that of a permutation test, which takes the
    kernels as they are and gives them to the towers at random, `draws` times, by a generator keyed by `seed`: the share
    of draws at least as far apart, the observed one counted among them (Phipson and Smyth 2010), so never 0.

    Raises ConfigurationError for one tower, or a tower whose kernels are all dead.
    """
    living = [values[~values.isnan()].double() for values in towers]
    if len(living) < 2 or not all(len(values) for values in living):
        raise ConfigurationError(
            f"a separation is between towers with living kernels; these have {[len(values) for values in living]}"
        )
    pooled = torch.cat(living)
    ahead = (pooled[:, None] > pooled).double() + (pooled[:, None] == pooled).double() / 2  # [all, all]
    sizes = torch.tensor([len(values) for values in living])
    tower_of = torch.arange(len(living)).repeat_interleave(sizes)
    pairs = list(permutations(range(len(living)), 2))
    observed = _aucs(ahead, tower_of[None], pairs)[:, 0]
    generator = keyed_generator(seed, "permutations of kernels")
    orders = torch.rand(draws, len(pooled), generator=generator).argsort(dim=1)
    drawn = _aucs(ahead, tower_of[orders], pairs).amax(dim=0)
    auc, best = observed.max(dim=0)
    more, less = pairs[int(best)]
    medians = [float(np.median(values.numpy())) for values in living]
    return Separation(
        auc=float(auc),
        # Equal shares of pairs, added up in another order, may differ in the last digit.
        p_value=(1 + int((drawn >= auc - 1e-9).sum())) / (1 + draws),
        more=more,
        less=less,
        difference=medians[more] - medians[less],
        medians=tuple(medians),
        counted=tuple(sizes.tolist()),
    )


def _aucs(ahead: Tensor, tower_of: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """[pairs, draws]: for each pair of towers, the share of pairs of kernels in which the first's is ahead."""
    found = []
    for one, other in pairs:
        first, second = (tower_of == one).double(), (tower_of == other).double()  # [draws, all]
        found.append(((first @ ahead) * second).sum(dim=1) / (first[0].sum() * second[0].sum()))
    return torch.stack(found)
