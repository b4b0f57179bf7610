"""Max and average pooling whose windows may hang over an edge, as cuda-convnet's and Caffe's do."""

from torch import Tensor, nn
from torch.nn import functional as F

LOWEST = float("-inf")


class Pool(nn.Module):
    """Windows of `size` x `size` pixels, a `stride` apart, that may hang over the edges by `pad`."""

    def __init__(self, size: int, stride: int, pad: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self.size, self.stride, self.pad = size, stride, pad

    def extra_repr(self) -> str:
        return f"{self.size}, stride={self.stride}, pad={self.pad}"


class MaxPool(Pool):
    """The largest value of every `size` x `size` window of maps [N, C, H, W]; what lies over an edge does not count.

    `pad` is (over the top and left edge, over the bottom and right edge) in pixels. `pad=(0, 1)` gives 3x3 windows at
    a stride of 2 the rule of cuda-convnet on sides of even length: as many windows as begin inside, the last one cut.
    """

    def forward(self, maps: Tensor) -> Tensor:
        begin, end = self.pad
        if begin == end and 2 * begin <= self.size:  # more, PyTorch does not pad by itself
            return F.max_pool2d(maps, self.size, self.stride, padding=begin)
        if _cut_windows_are_enough(self, maps):  # without a padded copy of the maps
            return F.max_pool2d(maps, self.size, self.stride, padding=begin, ceil_mode=True)
        return F.max_pool2d(F.pad(maps, (begin, end, begin, end), value=LOWEST), self.size, self.stride)


class AveragePool(Pool):
    """The mean of every `size` x `size` window of maps [N, C, H, W], over the part of it that lies inside the maps.

    `pad` as in `MaxPool`; cuda-convnet's and Caffe's averages have the clipped window's own count below them too.
    """

    def forward(self, maps: Tensor) -> Tensor:
        begin, end = self.pad
        if begin == end and 2 * begin <= self.size:
            return F.avg_pool2d(maps, self.size, self.stride, padding=begin, count_include_pad=False)
        if _cut_windows_are_enough(self, maps):
            return F.avg_pool2d(maps, self.size, self.stride, begin, ceil_mode=True, count_include_pad=False)
        around = (begin, end, begin, end)
        inside = F.avg_pool2d(F.pad(maps.new_ones(1, 1, *maps.shape[2:]), around), self.size, self.stride)
        return F.avg_pool2d(F.pad(maps, around), self.size, self.stride) / inside


class GlobalAveragePool(nn.Module):
    """The mean of every map: [N, C, H, W] to [N, C, 1, 1]."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean((2, 3), keepdim=True)


def _cut_windows_are_enough(pool: Pool, maps: Tensor) -> bool:
    """Whether PyTorch's ceil mode, in which a window begins inside and may end outside, gives the same windows."""
    begin, end = pool.pad
    return 2 * begin <= pool.size and all(
        (side + begin + end - pool.size) // pool.stride == _windows_that_begin_inside(side, begin, pool) - 1
        for side in maps.shape[2:]
    )


def _windows_that_begin_inside(side: int, begin: int, pool: Pool) -> int:
    covering = -(-(side + 2 * begin - pool.size) // pool.stride) + 1
    return covering - 1 if (covering - 1) * pool.stride >= side + begin else covering
