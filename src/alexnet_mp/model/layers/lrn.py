"""LRN as one function with a closed-form gradient, computed block by block so that what is in between stays in cache.

With d = k + α Σ_j x_j² and p = d^-β:

    forward     y_i  = x_i p_i
    backward    dx_i = dy_i p_i - 2 α β x_i Σ_j dy_j p_j x_j / d_j     over the maps j whose window holds i

Only x is kept for the backward pass: to compute d again costs less than to fetch it from memory.

The squares of a block are written to a buffer in which every pixel has room for the part of a window that hangs over
the first and the last map. There, "the next map" is a fixed number of elements away for all maps, pixels and images
alike, so a sum over windows is a sum of shifted flat tensors, in either memory format.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from alexnet_mp.model.layers.window import Window, inverse_power, rows_in_a_block

# Each of the tensors that a block works on has about so many bytes a CPU thread: the fastest of 0.1 to 2 MB on a core
# with 1 MB of second-level cache (docs/performance.md).
BLOCK_BYTES = 768 * 1024


def local_response_norm(maps: Tensor, window: Window, towers: int = 1, compiled: bool = False) -> Tensor:
    """Normalize maps [N, towers * C, H, W]; no window reaches from one tower's C maps into the next tower's.

    The result has the memory format of `maps`. Half-precision maps are normalized in float32. `compiled` takes the same
    steps in kernels that torch.compile makes.
    """
    if maps.dtype in (torch.float16, torch.bfloat16):
        return local_response_norm(maps.float(), window, towers, compiled).to(maps.dtype)
    normalized: Tensor = _LocalResponseNorm.apply(maps, window, towers, compiled)  # type: ignore[no-untyped-call]
    return normalized


class _LocalResponseNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, window: Window, towers: int, compiled: bool) -> Tensor:
        maps = _dense(maps)
        ctx.save_for_backward(maps)
        ctx.towers, ctx.make_blocks = towers, partial(_compiled_blocks if compiled else Blocks, window=window)
        result = torch.empty_like(maps)
        rows = _rows(maps, towers)
        blocks = ctx.make_blocks(rows)
        for x, y in _cut(blocks.rows, rows, _rows(result, towers)):
            blocks.normalize(x, y)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (maps,) = ctx.saved_tensors
        aligned = gradient if gradient.stride() == maps.stride() else torch.empty_like(maps).copy_(gradient)
        result = torch.empty_like(maps)
        rows, gradients, results = (_rows(tensor, ctx.towers) for tensor in (maps, aligned, result))
        blocks = ctx.make_blocks(rows)
        for x, dy, dx in _cut(blocks.rows, rows, gradients, results):
            blocks.gradient(x, dy, dx)
        return result, None, None, None


class Blocks:
    """What is done to one block of rows [rows, maps, pixels] after another, and the buffers for it.

    A flat tensor here is [rows * (maps + n - 1) * pixels] long; `_of_maps` shows what it holds for the maps.
    """

    def __init__(self, rows: Tensor, window: Window) -> None:
        self._window = window
        self.rows = rows_in_a_block(rows, BLOCK_BYTES)
        _, self._maps, self._pixels = rows.shape
        self._row = (self._maps + window.n - 1) * self._pixels  # elements of a row, with the overhang
        self._size = self.rows * self._row + (window.n - 1) * self._pixels
        # With k / n in the overhang too, the terms of every window, clipped or not, add up to k.
        self._squares = rows.new_full((self._size + 1,), window.k / window.n)
        self._share = self._squares[-1]  # k / n where the device has it: to upload a number would make the host wait
        self._terms: Tensor | None = None
        self._sums, self._roots, self._powers = (rows.new_empty(self._size) for _ in range(3))

    def normalize(self, x: Tensor, y: Tensor) -> None:
        """Write x p into `y`."""
        torch.mul(x, self._of_maps(self._power(self._denominators(x))), out=y)

    def gradient(self, x: Tensor, dy: Tensor, dx: Tensor) -> None:
        """Write the gradient of x into `dx`."""
        if self._terms is None:
            self._terms = self._squares.new_zeros(self._size)
        denominators = self._denominators(x)
        torch.mul(dy, self._of_maps(self._power(denominators)), out=dx)
        # Map i lies in the windows of the maps that its own window, mirrored, would hold.
        terms = self._inside(self._terms, len(x), (self._window.n - 1) // 2)
        torch.mul(x, dx, out=terms).div_(self._of_maps(denominators))  # dy p x / d
        back = self._of_maps(self._window_sums(self._terms, len(x)))
        dx.addcmul_(x, back, value=-2 * self._window.alpha * self._window.beta)

    def _denominators(self, x: Tensor) -> Tensor:
        """d, flat; in the buffer of the sums, until the next ones."""
        inside = self._inside(self._squares, len(x), self._window.n // 2)
        torch.addcmul(self._share, x, x, value=self._window.alpha, out=inside)
        return self._window_sums(self._squares, len(x))

    def _power(self, denominators: Tensor) -> Tensor:
        """d^-β, flat."""
        length = len(denominators)
        root = torch.rsqrt(denominators, out=self._roots[:length])
        return inverse_power(root, self._window.beta, self._powers[:length])

    def _window_sums(self, padded: Tensor, rows: int) -> Tensor:
        """At each place the sum of the n elements from there on, a map apart, flat."""
        length = rows * self._row
        shifted = padded.as_strided((self._window.n, length), (self._pixels, 1))
        return torch.sum(shifted, 0, out=self._sums[:length])

    def _of_maps(self, flat: Tensor) -> Tensor:
        return flat.view(-1, self._row // self._pixels, self._pixels).narrow(1, 0, self._maps)

    def _inside(self, padded: Tensor, rows: int, before: int) -> Tensor:
        flat = padded[: rows * self._row]
        return flat.view(rows, -1, self._pixels).narrow(1, before, self._maps)


def _compiled_blocks(rows: Tensor, window: Window) -> Any:
    from alexnet_mp.model.layers.lrn_compiled import CompiledBlocks  # brings in the compiler, which takes seconds

    return CompiledBlocks(rows, window)


def _cut(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same block of each tensor, block after block."""
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def _dense(maps: Tensor) -> Tensor:
    """The maps without gaps, in one of the two memory formats."""
    if maps.is_contiguous() or maps.is_contiguous(memory_format=torch.channels_last):
        return maps
    return maps.contiguous()


def _rows(maps: Tensor, towers: int) -> Tensor:
    """Maps [N, towers * C, H, W] in memory order as [rows, C, pixels]: a view.

    Contiguous, a row is a tower's maps of an image; in channels_last, a tower's maps of one pixel.
    """
    if maps.is_contiguous():
        return maps.view(maps.shape[0] * towers, maps.shape[1] // towers, -1)
    return maps.permute(0, 2, 3, 1).view(-1, maps.shape[1] // towers, 1)
