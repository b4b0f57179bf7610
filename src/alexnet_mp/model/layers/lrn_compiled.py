"""The LRN's steps for torch.compile: one fused pass each, over larger blocks."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from alexnet_mp.model.layers.window import Window, inverse_power, rows_in_a_block

# Fewer tensors pass through the cache at once than without a compiler, and a call costs more (docs/performance.md).
BLOCK_BYTES = 1536 * 1024

# A process compiles for each shape and each GPU: with four GPUs the two shapes of the paper's network reach the limit
# of 8, beyond which torch.compile gives up in silence. Older releases of torch have no such argument.
_MANY: dict[str, Any] = (
    {"recompile_limit": 64} if "recompile_limit" in inspect.signature(torch.compile).parameters else {}
)


def _compile(steps: Callable[..., None]) -> Callable[..., None]:
    return torch.compile(steps, dynamic=False, **_MANY)


class CompiledBlocks:
    """What `local_response.Blocks` does. The squares lie in a buffer with room for the windows' overhang."""

    def __init__(self, rows: Tensor, window: Window) -> None:
        self._window = window
        count, maps, pixels = rows.shape
        # Blocks of one size, because another size is compiled anew.
        self.rows = next(size for size in range(rows_in_a_block(rows, BLOCK_BYTES), 0, -1) if count % size == 0)
        padded = (self.rows, maps + window.n - 1, pixels)
        # With k / n in the overhang too, the terms of every window, clipped or not, add up to k.
        self._squares = rows.new_full(padded, window.k / window.n)
        self._squares_inside = self._squares.narrow(1, window.n // 2, maps)
        # Map i lies in the windows of the maps that its own window, mirrored, would hold.
        self._terms = rows.new_zeros(padded)
        self._terms_inside = self._terms.narrow(1, (window.n - 1) // 2, maps)

    def normalize(self, x: Tensor, y: Tensor) -> None:
        """Write x p into `y`."""
        _write_squares(x, self._squares_inside, self._window)
        _normalize(x, self._squares, y, self._window)

    def gradient(self, x: Tensor, dy: Tensor, dx: Tensor) -> None:
        """Write the gradient of x into `dx`."""
        _write_squares(x, self._squares_inside, self._window)
        _write_direct_gradient(x, dy, self._squares, dx, self._terms_inside, self._window)
        _subtract_window_gradient(x, self._terms, dx, self._window)


@_compile
def _write_squares(x: Tensor, inside: Tensor, window: Window) -> None:
    inside.copy_(x * x * window.alpha + window.k / window.n)


@_compile
def _normalize(x: Tensor, squares: Tensor, y: Tensor, window: Window) -> None:
    root = torch.rsqrt(_window_sums(squares, x, window))
    y.copy_(x * inverse_power(root, window.beta))


@_compile
def _write_direct_gradient(x: Tensor, dy: Tensor, squares: Tensor, dx: Tensor, terms: Tensor, window: Window) -> None:
    root = torch.rsqrt(_window_sums(squares, x, window))
    direct = dy * inverse_power(root, window.beta)
    dx.copy_(direct)
    terms.copy_(direct * x * (root * root))


@_compile
def _subtract_window_gradient(x: Tensor, terms: Tensor, dx: Tensor, window: Window) -> None:
    dx.copy_(dx - 2 * window.alpha * window.beta * x * _window_sums(terms, x, window))


def _window_sums(padded: Tensor, x: Tensor, window: Window) -> Tensor:
    maps = x.shape[1]
    total = padded.narrow(1, 0, maps)
    for shift in range(1, window.n):
        total = total + padded.narrow(1, shift, maps)
    return total
