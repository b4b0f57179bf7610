"""An independent single-device AlexNet: stock PyTorch and plain formulas, nothing from the library.

Weights come in Caffe's layout. The grouped layers use `groups`; each normalization is its formula, tower by tower.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = Mapping[str, Tensor]


def paper(images: Tensor, w: Weights, towers: int = 2) -> Tensor:
    """The paper's text (§3): conv, ReLU, LRN, pool; α multiplies the sum; evaluation halves fc6's and fc7's outputs."""
    x = F.pad(images, (0, 3, 0, 3))  # 224 -> 227, zeros at the right and at the bottom
    return _after_conv1(F.conv2d(x, w["conv1.weight"], w["conv1.bias"], stride=4).relu(), w, towers)


def original_2012(images: Tensor, w: Weights) -> Tensor:
    """Run #145 (layers-145.cfg): conv1, LRN, pool, ReLU; (α/5) Σ; a spatial normalization after the second LRN."""
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
    return _after_conv1(F.conv2d(images, w["conv1.weight"], w["conv1.bias"], padding=1).relu(), w, towers)


def cifar10_batchnorm(images: Tensor, w: Weights, training: bool, epsilon: float = 1e-5) -> Tensor:
    """The preset without its dropout: conv, batch normalization by its formula (Ioffe and Szegedy 2015), ReLU, pool."""

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


def lenet5(images: Tensor, w: Weights) -> Tensor:
    """LeCun et al. 1998 as textbooks read it: C3 reads all maps, subsampling is a mean, tanh."""
    x = F.avg_pool2d(F.conv2d(images, w["conv1.weight"], w["conv1.bias"]).tanh(), 2)
    x = F.avg_pool2d(F.conv2d(x, w["conv3.weight"], w["conv3.bias"]).tanh(), 2)
    x = F.conv2d(x, w["conv5.weight"], w["conv5.bias"]).tanh().flatten(1)
    x = F.linear(x, w["fc6.weight"], w["fc6.bias"]).tanh()
    return F.linear(x, w["fc7.weight"], w["fc7.bias"])


def vgg16(images: Tensor, w: Weights) -> Tensor:
    """Simonyan and Zisserman 2014, configuration D, without dropout."""
    return _vgg(images, w, (2, 2, 3, 3, 3))


def vgg19(images: Tensor, w: Weights) -> Tensor:
    """Simonyan and Zisserman 2014, configuration E, without dropout."""
    return _vgg(images, w, (2, 2, 4, 4, 4))


def _vgg(images: Tensor, w: Weights, blocks: tuple[int, ...]) -> Tensor:
    x = images
    for block, convolutions in enumerate(blocks, 1):
        for n in range(1, convolutions + 1):
            x = F.conv2d(x, w[f"conv{block}_{n}.weight"], w[f"conv{block}_{n}.bias"], padding=1).relu()
        x = F.max_pool2d(x, 2)
    return _linear_layers(x, w)


def zfnet(images: Tensor, w: Weights, towers: int) -> Tensor:
    """Zeiler and Fergus 2013: conv, ReLU, pool (windows may hang over), then AlexNet's LRN, tower by tower."""
    x = F.conv2d(images, w["conv1.weight"], w["conv1.bias"], stride=2, padding=1).relu()
    x = _per_tower(lrn, F.max_pool2d(x, 3, 2, ceil_mode=True), towers, alpha=1e-4)
    x = F.conv2d(x, w["conv2.weight"], w["conv2.bias"], stride=2).relu()
    x = _per_tower(lrn, F.max_pool2d(x, 3, 2, ceil_mode=True), towers, alpha=1e-4)
    for n in (3, 4, 5):
        x = F.conv2d(x, w[f"conv{n}.weight"], w[f"conv{n}.bias"], padding=1).relu()
    return _fully_connected(F.max_pool2d(x, 3, 2), w)


def one_weird_trick(images: Tensor, w: Weights, towers: int) -> Tensor:
    """torchvision's AlexNet, without dropout; in towers that meet only at the sum of the logits, all is in groups."""
    x = F.max_pool2d(F.conv2d(images, w["conv1.weight"], w["conv1.bias"], 4, 2).relu(), 3, 2)
    x = F.max_pool2d(F.conv2d(x, w["conv2.weight"], w["conv2.bias"], 1, 2, groups=towers).relu(), 3, 2)
    for n in (3, 4, 5):
        x = F.conv2d(x, w[f"conv{n}.weight"], w[f"conv{n}.bias"], 1, 1, groups=towers).relu()
    x = F.max_pool2d(x, 3, 2).flatten(1)
    for layer in ("fc6", "fc7"):
        parts = (each.chunk(towers, dim) for each, dim in ((x, 1), (w[f"{layer}.weight"], 0), (w[f"{layer}.bias"], 0)))
        x = torch.cat([F.linear(*each) for each in zip(*parts, strict=True)], dim=1).relu()
    return F.linear(x, w["fc8.weight"], w["fc8.bias"])


def googlenet(images: Tensor, w: Weights) -> tuple[Tensor, dict[str, Tensor]]:
    """Szegedy et al. 2014 without dropout: the logits, and those of the auxiliary classifiers by name."""

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = w[f"{name}.weight"]
        return F.conv2d(x, weight, w[f"{name}.bias"], stride, weight.shape[-1] // 2).relu()

    def inception(x: Tensor, name: str) -> Tensor:
        pooled = F.max_pool2d(x, 3, 1, padding=1)
        branches = [conv(x, f"{name}_1x1_conv")]
        branches += [conv(conv(x, f"{name}_{size}_reduce"), f"{name}_{size}_conv") for size in ("3x3", "5x5")]
        return torch.cat([*branches, conv(pooled, f"{name}_pool_project")], dim=1)

    def classifier(x: Tensor, name: str) -> Tensor:
        x = conv(F.avg_pool2d(x, 5, 3), f"{name}_conv").flatten(1)
        x = F.linear(x, w[f"{name}_fc.weight"], w[f"{name}_fc.bias"]).relu()
        return F.linear(x, w[f"{name}_logits.weight"], w[f"{name}_logits.bias"])

    auxiliary = {}
    x = F.max_pool2d(conv(images, "conv1", 2), 3, 2, ceil_mode=True)
    x = conv(conv(lrn(x, 1e-4 / 5, k=1.0), "conv2_reduce"), "conv2")
    x = F.max_pool2d(lrn(x, 1e-4 / 5, k=1.0), 3, 2, ceil_mode=True)
    for module in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        x = inception(x, f"inception{module}")
        if module in ("4a", "4d"):
            auxiliary[f"aux{module}"] = classifier(x, f"aux{module}")
        if module in ("3b", "4e"):
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    return F.linear(x.mean((2, 3)), w["fc6.weight"], w["fc6.bias"]), auxiliary


def cifar10_11pct(images: Tensor, w: Weights) -> Tensor:
    """cuda-convnet's layers-conv-local-11pct.cfg: LRN over 9 maps, pooling windows that hang over, unshared weights."""
    x = F.max_pool2d(F.conv2d(images, w["conv1.weight"], w["conv1.bias"], 1, 2).relu(), 3, 2, ceil_mode=True)
    x = lrn(x, 0.001 / 9, n=9, k=1.0)
    x = lrn(F.conv2d(x, w["conv2.weight"], w["conv2.bias"], 1, 2).relu(), 0.001 / 9, n=9, k=1.0)
    x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    x = local(x, w["local3.weight"], w["local3.bias"], pad=1).relu()
    x = local(x, w["local4.weight"], w["local4.bias"], pad=1).relu()
    return F.linear(x.flatten(1), w["fc10.weight"], w["fc10.bias"])


def local(x: Tensor, weight: Tensor, bias: Tensor, pad: int, stride: int = 1) -> Tensor:
    """A kernel [maps, size, size] and a bias for each output and position, one by one (cuda-convnet, `local`)."""
    size, x = weight.shape[2], F.pad(x, (pad, pad, pad, pad))

    def position(row: int, column: int) -> Tensor:
        top, left = row * stride, column * stride
        window = x[:, None, :, top : top + size, left : left + size]
        return (window * weight[..., row, column]).sum((2, 3, 4)) + bias[:, row, column]

    rows, columns = range(weight.shape[-2]), range(weight.shape[-1])
    return torch.stack([torch.stack([position(row, each) for each in columns], -1) for row in rows], -2)


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


def _after_conv1(x: Tensor, w: Weights, towers: int) -> Tensor:
    """The paper's rows from the first LRN on (§3.5)."""
    x = F.max_pool2d(_per_tower(lrn, x, towers, alpha=1e-4), 3, 2)
    x = F.conv2d(x, w["conv2.weight"], w["conv2.bias"], padding=2, groups=towers).relu()
    x = F.max_pool2d(_per_tower(lrn, x, towers, alpha=1e-4), 3, 2)
    x = F.conv2d(x, w["conv3.weight"], w["conv3.bias"], padding=1).relu()
    x = F.conv2d(x, w["conv4.weight"], w["conv4.bias"], padding=1, groups=towers).relu()
    x = F.conv2d(x, w["conv5.weight"], w["conv5.bias"], padding=1, groups=towers).relu()
    return _fully_connected(F.max_pool2d(x, 3, 2), w)


def _per_tower(function, x: Tensor, towers: int, **arguments) -> Tensor:
    return torch.cat([function(half, **arguments) for half in x.chunk(towers, dim=1)], dim=1)


def _fully_connected(x: Tensor, w: Weights) -> Tensor:
    x = F.linear(x.flatten(1), w["fc6.weight"], w["fc6.bias"]).relu() * 0.5
    x = F.linear(x, w["fc7.weight"], w["fc7.bias"]).relu() * 0.5
    return F.linear(x, w["fc8.weight"], w["fc8.bias"])


def _linear_layers(x: Tensor, w: Weights) -> Tensor:
    x = F.linear(x.flatten(1), w["fc6.weight"], w["fc6.bias"]).relu()
    x = F.linear(x, w["fc7.weight"], w["fc7.bias"]).relu()
    return F.linear(x, w["fc8.weight"], w["fc8.bias"])
