"""An independent single-device AlexNet: stock PyTorch and plain formulas, nothing from the library.

Weights come in Caffe's layout. The grouped layers use `groups`; each normalisation is its formula, tower by tower.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = Mapping[str, Tensor]


def paper(images: Tensor, w: Weights, towers: int = 2) -> Tensor:
    """The paper's text (§3): conv, ReLU, LRN, pool; α multiplies the sum; evaluation halves fc6's and fc7's outputs."""
    x = F.pad(images, (0, 3, 0, 3))  # 224 -> 227, zeros at the right and at the bottom
    x = F.conv2d(x, w["conv1.weight"], w["conv1.bias"], stride=4).relu()
    x = F.max_pool2d(_per_tower(lrn, x, towers, alpha=1e-4), 3, 2)
    x = F.conv2d(x, w["conv2.weight"], w["conv2.bias"], padding=2, groups=towers).relu()
    x = F.max_pool2d(_per_tower(lrn, x, towers, alpha=1e-4), 3, 2)
    x = F.conv2d(x, w["conv3.weight"], w["conv3.bias"], padding=1).relu()
    x = F.conv2d(x, w["conv4.weight"], w["conv4.bias"], padding=1, groups=towers).relu()
    x = F.conv2d(x, w["conv5.weight"], w["conv5.bias"], padding=1, groups=towers).relu()
    return _fully_connected(F.max_pool2d(x, 3, 2), w)


def original_2012(images: Tensor, w: Weights) -> Tensor:
    """Run #145 (layers-145.cfg): conv1, LRN, pool, ReLU; (α/5) Σ; a spatial normalisation after the second LRN."""
    x = F.pad(images, (0, 3, 0, 3))
    x = F.conv2d(x, w["conv1.weight"], w["conv1.bias"], stride=4)
    x = F.max_pool2d(_per_tower(lrn, x, 2, alpha=1e-4 / 5), 3, 2).relu()
    x = F.conv2d(x, w["conv2.weight"], w["conv2.bias"], padding=2, groups=2).relu()
    x = F.max_pool2d(spatial(_per_tower(lrn, x, 2, alpha=1e-4 / 5)), 3, 2)
    x = F.conv2d(x, w["conv3.weight"], w["conv3.bias"], padding=1).relu()
    x = F.conv2d(x, w["conv4.weight"], w["conv4.bias"], padding=1, groups=2).relu()
    x = F.conv2d(x, w["conv5.weight"], w["conv5.bias"], padding=1, groups=2)
    return _fully_connected(F.max_pool2d(x, 3, 2).relu(), w)


def small(images: Tensor, w: Weights, towers: int) -> Tensor:
    """The preset `small`: the paper's order of layers with a 3x3 conv1, for any number of towers."""
    x = F.conv2d(images, w["conv1.weight"], w["conv1.bias"], padding=1).relu()
    x = F.max_pool2d(_per_tower(lrn, x, towers, alpha=1e-4), 3, 2)
    x = F.conv2d(x, w["conv2.weight"], w["conv2.bias"], padding=2, groups=towers).relu()
    x = F.max_pool2d(_per_tower(lrn, x, towers, alpha=1e-4), 3, 2)
    x = F.conv2d(x, w["conv3.weight"], w["conv3.bias"], padding=1).relu()
    x = F.conv2d(x, w["conv4.weight"], w["conv4.bias"], padding=1, groups=towers).relu()
    x = F.conv2d(x, w["conv5.weight"], w["conv5.bias"], padding=1, groups=towers).relu()
    return _fully_connected(F.max_pool2d(x, 3, 2), w)


def cifar10_batchnorm(images: Tensor, w: Weights, training: bool, epsilon: float = 1e-5) -> Tensor:
    """The preset without its dropout: conv, batch normalisation by its formula (Ioffe and Szegedy 2015), ReLU, pool."""

    def norm(x: Tensor, name: str) -> Tensor:
        axes, shape = ((0, 2, 3), (1, -1, 1, 1)) if x.ndim == 4 else ((0,), (1, -1))
        mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        if training:
            mean, variance = x.mean(axes), ((x - x.mean(axes).view(shape)) ** 2).mean(axes)
        standard = (x - mean.view(shape)) / (variance.view(shape) + epsilon) ** 0.5
        return standard * w[f"{name}.weight"].view(shape) + w[f"{name}.bias"].view(shape)

    def block(x: Tensor, n: int, padding: int, groups: int) -> Tensor:
        return norm(F.conv2d(x, w[f"conv{n}.weight"], w[f"conv{n}.bias"], 1, padding, 1, groups), f"norm{n}").relu()

    x = F.max_pool2d(block(images, 1, 2, 1), 3, 2)
    x = F.max_pool2d(block(x, 2, 2, 2), 3, 2)
    x = block(block(block(x, 3, 1, 1), 4, 1, 2), 5, 1, 2)
    x = F.max_pool2d(x, 3, 2).flatten(1)
    for layer in ("6", "7"):
        x = norm(F.linear(x, w[f"fc{layer}.weight"], w[f"fc{layer}.bias"]), f"norm{layer}").relu()
    return F.linear(x, w["fc8.weight"], w["fc8.bias"])


def lrn(a: Tensor, alpha: float, n: int = 5, k: float = 2.0, beta: float = 0.75) -> Tensor:
    """b_i = a_i / (k + α Σ_{j=max(0, i-n/2)}^{min(N-1, i+n/2)} a_j²)^β, map by map (paper §3.3)."""
    maps = a.shape[1]
    return torch.stack(
        [
            a[:, i] / (k + alpha * (a[:, max(0, i - n // 2) : min(maps, i + n // 2 + 1)] ** 2).sum(1)) ** beta
            for i in range(maps)
        ],
        dim=1,
    )


def spatial(a: Tensor, size: int = 5, alpha: float = 0.001, beta: float = 0.75) -> Tensor:
    """a / (1 + (α/size²) Σ a²)^β over the size x size window of the same map, by a convolution with ones."""
    maps = a.shape[1]
    ones = torch.ones(maps, 1, size, size, dtype=a.dtype)
    total = F.conv2d(a**2, ones, padding=size // 2, groups=maps)
    return a / (1 + alpha / size**2 * total) ** beta


def _per_tower(function, x: Tensor, towers: int, **arguments) -> Tensor:
    return torch.cat([function(half, **arguments) for half in x.chunk(towers, dim=1)], dim=1)


def _fully_connected(x: Tensor, w: Weights) -> Tensor:
    x = F.linear(x.flatten(1), w["fc6.weight"], w["fc6.bias"]).relu() * 0.5
    x = F.linear(x, w["fc7.weight"], w["fc7.bias"]).relu() * 0.5
    return F.linear(x, w["fc8.weight"], w["fc8.bias"])
