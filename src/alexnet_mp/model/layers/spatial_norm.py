"""The original code's normalization over a window of the same map, with a closed-form gradient, images by blocks.

With m the mean of x² over the window, zeros outside, d = k + α m and p = d^-β:

    forward     y  = x p
    backward    dx = dy p - 2 α β x mean(dy p x / d)

As in `local_response.py`, only x is kept, and a block of images goes through all the steps while it is in the cache.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from alexnet_mp.model.layers.window import Window, inverse_power, rows_in_a_block

BLOCK_BYTES = 768 * 1024  # a CPU thread, as in `local_response.py`


def spatial_norm(maps: Tensor, window: Window) -> Tensor:
    """Normalize maps [N, C, H, W] over `n` x `n` windows, n odd; `alpha` multiplies the mean.

    Half-precision maps are normalized in float32.
    """
    if maps.dtype in (torch.float16, torch.bfloat16):
        return spatial_norm(maps.float(), window).to(maps.dtype)
    normalized: Tensor = _SpatialNorm.apply(maps, window)  # type: ignore[no-untyped-call]
    return normalized


class _SpatialNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, window: Window) -> Tensor:
        ctx.save_for_backward(maps)
        ctx.window = window
        result = torch.empty_like(maps)
        size = rows_in_a_block(maps, BLOCK_BYTES)
        for x, y in zip(maps.split(size), result.split(size), strict=True):
            torch.mul(x, inverse_power(_inverse_root(x, window), window.beta), out=y)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (maps,) = ctx.saved_tensors
        window: Window = ctx.window
        result = torch.empty_like(maps)
        size = rows_in_a_block(maps, BLOCK_BYTES)
        for x, dy, dx in zip(*(tensor.split(size) for tensor in (maps, gradient, result)), strict=True):
            root = _inverse_root(x, window)
            torch.mul(dy, inverse_power(root, window.beta), out=dx)
            from_each = root.mul_(root).mul_(x).mul_(dx)  # dy p x / d
            # A window of odd size is its own mirror image, and zeros outside count in every mean.
            dx.addcmul_(x, _window_means(from_each, window.n), value=-2 * window.alpha * window.beta)
        return result, None


def _inverse_root(x: Tensor, window: Window) -> Tensor:
    """d^-½."""
    return _window_means(x * x, window.n).mul_(window.alpha).add_(window.k).rsqrt_()


def _window_means(x: Tensor, size: int) -> Tensor:
    return F.avg_pool2d(x, size, stride=1, padding=size // 2)
