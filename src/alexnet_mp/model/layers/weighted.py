"""Layers with weights: reading one tower, reading both, and the classifier whose outputs are summed."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Convolution:
    """What a convolution does with inputs [N, maps, H, W] and a weight [kernels, maps, size, size].

    `pad` is (top and left, bottom and right).
    """

    stride: int
    pad: tuple[int, int]

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        begin, end = self.pad
        if begin != end:
            return F.conv2d(F.pad(inputs, (begin, end, begin, end)), weight, bias, self.stride)
        return F.conv2d(inputs, weight, bias, self.stride, padding=begin)


def matrix_product(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What a fully-connected layer does: flatten [N, maps, H, W] channel by channel, multiply by [units, inputs]."""
    return F.linear(inputs.flatten(1), weight, bias)


class OwnLayer(nn.Module):
    """A convolution or fully-connected layer that reads the image or its own tower alone."""

    def __init__(self, product: Product, weight_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.product = product
        self.weight = nn.Parameter(torch.empty(weight_shape))
        self.bias = nn.Parameter(torch.empty(weight_shape[0]))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.product(inputs, self.weight, self.bias)


class LocallyConnected(nn.Module):
    """A convolution whose weights are not shared: each position of the output [N, kernels, H, W] has its own kernels.

    `weight` [kernels, maps, size, size, H, W]; `bias` [kernels, H, W], unshared too as in cuda-convnet (layer.py,
    LocalUnsharedLayerParser). `pad` is (top and left, bottom and right).
    """

    def __init__(self, weight_shape: tuple[int, ...], stride: int, pad: tuple[int, int]) -> None:
        super().__init__()
        self.stride, self.pad = stride, pad
        self.weight = nn.Parameter(torch.empty(weight_shape))
        self.bias = nn.Parameter(torch.empty(weight_shape[0], *weight_shape[-2:]))

    def forward(self, inputs: Tensor) -> Tensor:
        kernels, _, size, _, height, width = self.weight.shape
        begin, end = self.pad
        padded = F.pad(inputs, (begin, end, begin, end))
        windows = padded.unfold(2, size, self.stride).unfold(3, size, self.stride)  # [N, maps, H, W, size, size]
        # One product a position: [H * W, N, inputs of a window] by [H * W, inputs of a window, kernels]. A window has
        # its maps last, as channels_last has them in memory.
        inside = windows.permute(2, 3, 0, 4, 5, 1).reshape(height * width, len(inputs), -1)
        weight = self.weight.permute(4, 5, 2, 3, 1, 0).reshape(height * width, -1, kernels)
        bias = self.bias.flatten(1).t().unsqueeze(1)  # [H * W, 1, kernels]
        outputs = torch.baddbmm(bias, inside, weight).transpose(0, 1).contiguous()  # [N, H * W, kernels]
        return outputs.view(-1, height, width, kernels).permute(0, 3, 1, 2)


class TwoInputLayer(nn.Module):
    """A layer that reads both towers: one weight for its own tower's activations, one for the peers', one bias.

    The original code had two weights too (layers-145.cfg: `inputs=pool2a,pool2b`). The product with `own_weight` needs
    nothing from elsewhere, so it runs while the peers' half is on its way. `peer_weight` takes the other towers' inputs
    concatenated in tower order; a network of one tower has none.
    """

    def __init__(self, product: Product, own_shape: tuple[int, ...], peer_shape: tuple[int, ...] | None) -> None:
        super().__init__()
        self.product = product
        self.own_weight = nn.Parameter(torch.empty(own_shape))
        self.peer_weight = None if peer_shape is None else nn.Parameter(torch.empty(peer_shape))
        self.bias = nn.Parameter(torch.empty(own_shape[0]))

    def own_half(self, own: Tensor) -> Tensor:
        """The sum over this tower's activations, without the bias."""
        return self.product(own, self.own_weight, None)

    def combine(self, partial: Tensor, peer: Tensor | None) -> Tensor:
        """Add to `own_half`'s result the bias and the sum over the peers' activations."""
        combined: Tensor = self(partial, peer)  # a call of the layer, so that hooks see what comes out of it
        return combined

    def forward(self, partial: Tensor, peer: Tensor | None) -> Tensor:
        if self.peer_weight is None:
            return partial + self.bias.view(-1, *[1] * (partial.ndim - 2))
        assert peer is not None, "the peers' half did not come"
        return partial + self.product(peer, self.peer_weight, self.bias)


class PartialLogits(nn.Module):
    """The classifier's share of one tower: [N, units] to partial logits [N, classes]; tower 0 alone has the bias."""

    def __init__(self, own_shape: tuple[int, ...], has_bias: bool) -> None:
        super().__init__()
        self.own_weight = nn.Parameter(torch.empty(own_shape))  # [classes, units]
        self.bias = nn.Parameter(torch.empty(own_shape[0])) if has_bias else None

    def forward(self, own: Tensor) -> Tensor:
        # In the weights' dtype, because logits are summed across towers and autocast would have rounded them.
        return matrix_product(own, self.own_weight, self.bias).to(self.own_weight.dtype)


Weighted = OwnLayer | LocallyConnected | TwoInputLayer | PartialLogits


@torch.no_grad()
def initialize(layer: Weighted, std: float | str, fan_in: int, bias: float, generator: torch.Generator) -> None:
    """Draw the layer's weights from N(0, std) (paper §5) and fill its bias; own weights are drawn before peer weights.

    `std="he"` means sqrt(2 / fan_in), He et al. 2015; `fan_in` counts the inputs of one unit from all towers. Values
    are drawn on the CPU in float32, so that they do not depend on where and in which precision the layer lives.
    """
    weights = [weight for name, weight in layer.named_parameters() if name != "bias"]
    deviation = sqrt(2 / fan_in) if std == "he" else float(std)
    for weight in weights:
        drawn = torch.empty(weight.shape, dtype=torch.float32, device="cpu")
        weight.copy_(drawn.normal_(0, deviation, generator=generator))
    if layer.bias is not None:
        layer.bias.fill_(bias)
