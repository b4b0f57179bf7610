"""The parts of stock PyTorch: the baseline's layers, written without this library's."""

from torch import Tensor, nn
from torch.nn import functional as F

from alexnet_mp.benchmark.single import Parts, single_network
from alexnet_mp.network import rows
from alexnet_mp.network.table import Network


def stock_network(network: Network) -> nn.Sequential:
    """Build the table's network as a PyTorch user would: images [N, channels, H, W] to logits [N, classes].

    ReLUs work in place and dropout is inverted, as torchvision has them.

    About the LRN: most single-device copies call `nn.LocalResponseNorm` on the channels of all towers at once, which
    mixes the towers at their boundary (channels 47 and 48 of conv1, 127 and 128 of conv2 in the paper's network), so
    they are another network. Cutting the maps into one chunk a tower is right, but copies every map to cut and to
    join, and would hold the baseline back. Here the towers are folded into the batch instead: a view, no copy, right
    for every tower, and as fast as the call on all channels.
    """
    return single_network(network, STOCK_PARTS)


class TowersAsBatch(nn.Module):
    """Apply a layer to every tower's maps by themselves: [N, towers * C, H, W] is viewed as [N * towers, C, H, W]."""

    def __init__(self, layer: nn.Module, towers: int) -> None:
        super().__init__()
        self.layer, self.towers = layer, towers

    def forward(self, maps: Tensor) -> Tensor:
        folded = maps.unflatten(1, (self.towers, -1)).flatten(0, 1)  # [N * towers, C, H, W]
        normalised: Tensor = self.layer(folded)
        return normalised.view(maps.shape)


class SpatialNorm(nn.Module):
    """a / (k + (alpha/size²) Σ a²)^beta over a window of the same map, which torch has no layer for."""

    def __init__(self, row: rows.SpatialNorm) -> None:
        super().__init__()
        self.row = row

    def forward(self, maps: Tensor) -> Tensor:
        mean = F.avg_pool2d(maps.square(), self.row.size, stride=1, padding=self.row.size // 2)
        return maps / mean.mul(self.row.alpha).add(self.row.k).pow(self.row.beta)


def _lrn(row: rows.LocalResponseNorm, towers: int) -> nn.Module:
    # torch divides alpha by n; the paper's alpha multiplies the sum itself.
    alpha = row.alpha * row.n if row.alpha_scales == "sum" else row.alpha
    return TowersAsBatch(nn.LocalResponseNorm(row.n, alpha, row.beta, row.k), towers)


def _batch_norm(row: rows.BatchNorm, features: int, maps: bool) -> nn.Module:
    return (nn.BatchNorm2d if maps else nn.BatchNorm1d)(features, row.epsilon, row.momentum)


STOCK_PARTS = Parts(_lrn, SpatialNorm, _batch_norm, lambda row: nn.Dropout(row.p))
