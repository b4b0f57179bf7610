"""Normalization layers: across adjacent maps and over a window of a map (2012), and over the batch (2015)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet_mp.model.layers.lrn import local_response_norm
from alexnet_mp.model.layers.spatial_norm import spatial_norm
from alexnet_mp.model.layers.window import Window


class LocalResponseNorm(nn.Module):
    """b_i = a_i / (k + α Σ_j a_j²)^β over the `n` maps j around i, clipped at the ends (paper §3.3).

    Maps [N, maps, H, W] of one tower: the window never reaches into another tower. With `alpha_scales="sum"` α
    multiplies the sum, the paper's text; with "mean" it multiplies the mean, Σ/n, as in the original code
    (layers-145.cfg) and in PyTorch's and Caffe's LRN.
    """

    def __init__(
        self, n: int, k: float, alpha: float, beta: float, alpha_scales: Literal["sum", "mean"], towers: int = 1
    ) -> None:
        """`towers`: the maps are those of so many towers, one after another, each normalized by itself."""
        super().__init__()
        self.window = Window(n, k, alpha / n if alpha_scales == "mean" else alpha, beta)
        self.towers = towers
        self.compiled = False  # in training, by kernels of torch.compile

    def forward(self, maps: Tensor) -> Tensor:
        return local_response_norm(maps, self.window, self.towers, self.compiled and self.training)

    def extra_repr(self) -> str:
        return f"{self.window}, towers={self.towers}"


class SpatialNorm(nn.Module):
    """a / (k + (α/size²) Σ a²)^β over the `size` x `size` window of the same map, zeros outside (layers-145.cfg).

    The original code has it after the LRN of conv2; the paper does not mention it.
    """

    def __init__(self, size: int, k: float, alpha: float, beta: float) -> None:
        super().__init__()
        self.window = Window(size, k, alpha, beta)

    def forward(self, maps: Tensor) -> Tensor:
        return spatial_norm(maps, self.window)

    def extra_repr(self) -> str:
        return f"{self.window}"


class BatchNorm(nn.Module):
    """weight (x - mean) / sqrt(variance + ε) + bias, for every map or unit of one tower (Ioffe and Szegedy 2015).

    Inputs [N, maps, H, W] or [N, units]. In training, mean and variance are those of the images that this replica has
    in the batch, so that other numbers of replicas train differently; in evaluation they are the running ones.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, maps: int, momentum: float, epsilon: float) -> None:
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon
        self.weight = nn.Parameter(torch.ones(maps))
        self.bias = nn.Parameter(torch.zeros(maps))
        self.register_buffer("running_mean", torch.zeros(maps))
        self.register_buffer("running_var", torch.ones(maps))

    def forward(self, inputs: Tensor) -> Tensor:
        return F.batch_norm(
            inputs,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.epsilon,
        )

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, momentum={self.momentum}, epsilon={self.epsilon}"
