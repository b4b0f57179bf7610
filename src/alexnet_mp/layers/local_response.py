"""LRN as one function with a closed-form gradient, computed block by block so that what is in between stays in cache.

With d = k + α Σ_j x_j² and p = d^-β:

    forward     y_i  = x_i p_i
    backward    dx_i = dy_i p_i - 2 α β x_i Σ_j dy_j p_j x_j / d_j     over the maps j whose window holds i

Only x is kept for the backward pass: to compute d again costs less than to fetch it from memory.

The squares of a block are written to a buffer in which every pixel has room for the part of a window that hangs over
the first and the last map. There, "the next map" is a fixed number of elements away for all maps, pixels and images
alike, so a sum over windows is a sum of shifted flat tensors, in either memory format. Five terms take three additions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Each of the tensors that a block works on may have so many bytes a CPU thread: the fastest of 0.1 to 2 MB on a core
# with 1 MB of second-level cache (docs/performance.md).
BLOCK_BYTES = 768 * 1024


@dataclass(frozen=True)
class Window:
    """The constants of the formula: `alpha` multiplies the sum over the `n` maps, of which n // 2 come before i."""

    n: int
    k: float
    alpha: float
    beta: float


def local_response_norm(maps: Tensor, window: Window, towers: int = 1) -> Tensor:
    """Normalise maps [N, towers * C, H, W]; no window reaches from one tower's C maps into the next tower's.

    The result has the memory format of `maps`. Half-precision maps are normalised in float32.
    """
    if maps.dtype in (torch.float16, torch.bfloat16):
        return local_response_norm(maps.float(), window, towers).to(maps.dtype)
    normalised: Tensor = _LocalResponseNorm.apply(maps, window, towers)  # type: ignore[no-untyped-call]
    return normalised


class _LocalResponseNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, window: Window, towers: int) -> Tensor:
        maps = _dense(maps)
        ctx.save_for_backward(maps)
        ctx.window, ctx.towers = window, towers
        result = torch.empty_like(maps)
        blocks = _Blocks(_rows(maps, towers), window)
        for x, y in blocks.of(_rows(maps, towers), _rows(result, towers)):
            root = blocks.inverse_root(x)
            torch.mul(x, blocks.maps(blocks.power(root)), out=y)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (maps,) = ctx.saved_tensors
        window: Window = ctx.window
        aligned = gradient if gradient.stride() == maps.stride() else torch.empty_like(maps).copy_(gradient)
        result = torch.empty_like(maps)
        blocks = _Blocks(_rows(maps, ctx.towers), window)
        for x, dy, dx in blocks.of(*(_rows(tensor, ctx.towers) for tensor in (maps, aligned, result))):
            root = blocks.inverse_root(x)
            torch.mul(dy, blocks.maps(blocks.power(root)), out=dx)
            from_each = blocks.maps(root.mul_(root)).mul_(x)  # x / d
            back = blocks.sum_over_windows_that_hold(from_each.mul_(dx))
            dx.addcmul_(x, back, value=-2 * window.alpha * window.beta)
        return result, None, None


class _Blocks:
    """Cuts rows [rows, maps, pixels] into blocks, and has the buffers to sum over the windows of a block.

    A flat tensor here is [rows * (maps + n - 1) * pixels] long; `maps` shows what it holds of the maps.
    """

    def __init__(self, rows: Tensor, window: Window) -> None:
        self._window = window
        count, self._maps, self._pixels = rows.shape
        self._row = (self._maps + window.n - 1) * self._pixels  # elements of a row, with the overhang
        fitting = torch.get_num_threads() * BLOCK_BYTES // (self._row * rows.element_size())
        self._rows = min(max(fitting, 1), count) if rows.device.type == "cpu" else count
        length = self._rows * self._row
        end = (window.n - 1) * self._pixels
        # With k / n in the overhang too, the terms of every window, clipped or not, add up to k.
        self._share = rows.new_tensor(window.k / window.n)
        self._squares = rows.new_full((length + end,), window.k / window.n)
        self._terms: Tensor | None = None
        self._spare = [rows.new_empty(length + end) for _ in range(3)]
        self._sums_in: int | None = None  # the spare buffer that the last sums lie in

    def of(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """The same block of each tensor, block after block."""
        return zip(*(tensor.split(self._rows) for tensor in tensors), strict=True)

    def maps(self, flat: Tensor) -> Tensor:
        """The maps of a flat tensor of sums or of what was made from them, [rows, maps, pixels]."""
        return flat.view(-1, self._row // self._pixels, self._pixels).narrow(1, 0, self._maps)

    def inverse_root(self, x: Tensor) -> Tensor:
        """d^-½, flat. It and `power` lie in buffers that the next block will use."""
        inside = self._inside(self._squares, len(x), self._window.n // 2)
        torch.addcmul(self._share, x, x, value=self._window.alpha, out=inside)
        return self._window_sums(self._squares, len(x)).rsqrt_()

    def power(self, inverse_root: Tensor) -> Tensor:
        """d^-β, flat, from d^-½."""
        out = self._spare[self._free(self._sums_in)][: len(inverse_root)]
        return inverse_power(inverse_root, self._window.beta, out)

    def sum_over_windows_that_hold(self, terms: Tensor) -> Tensor:
        """For each map the sum of `terms` over the maps whose window holds it, [rows, maps, pixels]."""
        if self._terms is None:
            self._terms = torch.zeros_like(self._squares)
        # They are the maps that its own window, mirrored, would hold.
        self._inside(self._terms, len(terms), (self._window.n - 1) // 2).copy_(terms)
        return self.maps(self._window_sums(self._terms, len(terms)))

    def _inside(self, padded: Tensor, rows: int, before: int) -> Tensor:
        flat = padded[: rows * self._row]
        return flat.view(rows, -1, self._pixels).narrow(1, before, self._maps)

    def _window_sums(self, padded: Tensor, rows: int) -> Tensor:
        """At each place the sum of the n elements from there on, a map apart: sums of 1, 2, 4, ... terms, doubled."""
        n, length = self._window.n, rows * self._row
        run, span, total, summed = padded[: length + (n - 1) * self._pixels], 1, None, 0
        run_in = total_in = None
        while True:
            if n & span:
                part = run[summed * self._pixels :][:length]
                if total is None:
                    total, total_in = part, run_in
                else:
                    free = self._free(run_in, total_in)
                    total, total_in = torch.add(total, part, out=self._spare[free][:length]), free
                summed += span
            if summed == n:
                assert total is not None
                self._sums_in = total_in
                return total
            shift, free = span * self._pixels, self._free(run_in, total_in)
            run = torch.add(run[:-shift], run[shift:], out=self._spare[free][: len(run) - shift])
            run_in, span = free, 2 * span

    def _free(self, *taken: int | None) -> int:
        return next(number for number in range(len(self._spare)) if number not in taken)


def inverse_power(inverse_root: Tensor, beta: float, out: Tensor | None = None) -> Tensor:
    """d^-β from d^-½."""
    if beta == 0.75:  # the paper's; one more square root is quicker than a power
        return torch.sqrt(inverse_root, out=out).mul_(inverse_root)
    return torch.pow(inverse_root, 2 * beta, out=out)


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
