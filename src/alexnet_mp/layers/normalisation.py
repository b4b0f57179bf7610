"""The two response normalisations of 2012: across adjacent maps, and over a window of the same map."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LocalResponseNorm(nn.Module):
    """b_i = a_i / (k + α Σ_j a_j²)^β over the `n` maps j around i, clipped at the ends (paper §3.3).

    Maps [N, maps, H, W] of one tower: the window never reaches into another tower. With `alpha_scales="sum"` α
    multiplies the sum, the paper's text; with "mean" it multiplies the mean, Σ/n, as in the original code
    (layers-145.cfg) and in PyTorch's and Caffe's LRN.
    """

    def __init__(self, n: int, k: float, alpha: float, beta: float, alpha_scales: Literal["sum", "mean"]) -> None:
        super().__init__()
        self.n, self.k, self.beta = n, k, beta
        self.alpha_per_term = alpha / n if alpha_scales == "mean" else alpha

    def forward(self, maps: Tensor) -> Tensor:
        reach = self.n // 2
        squares = F.pad(maps * maps, (0, 0, 0, 0, reach, reach))  # [N, maps + n - 1, H, W]
        total = squares.narrow(1, 0, maps.shape[1])
        for shift in range(1, self.n):
            total = total + squares.narrow(1, shift, maps.shape[1])
        return maps * torch.pow(self.k + self.alpha_per_term * total, -self.beta)

    def extra_repr(self) -> str:
        return f"n={self.n}, k={self.k}, alpha_per_term={self.alpha_per_term}, beta={self.beta}"


class SpatialNorm(nn.Module):
    """a / (k + (α/size²) Σ a²)^β over the `size` x `size` window of the same map, zeros outside (layers-145.cfg).

    The original code has it after the LRN of conv2; the paper does not mention it.
    """

    def __init__(self, size: int, k: float, alpha: float, beta: float) -> None:
        super().__init__()
        self.size, self.k, self.alpha, self.beta = size, k, alpha, beta

    def forward(self, maps: Tensor) -> Tensor:
        mean = F.avg_pool2d(maps * maps, self.size, stride=1, padding=self.size // 2)  # zeros at the border count
        return maps * torch.pow(self.k + self.alpha * mean, -self.beta)

    def extra_repr(self) -> str:
        return f"size={self.size}, k={self.k}, alpha={self.alpha}, beta={self.beta}"
