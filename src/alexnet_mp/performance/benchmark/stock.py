"""The baseline: the network of stock PyTorch's layers, as a PyTorch user would have it."""

from torch import nn

from alexnet_mp.model.single_device import single_device_model
from alexnet_mp.network.table import Network


def stock_network(network: Network) -> nn.Sequential:
    """Build the table's network as a PyTorch user would: images [N, channels, H, W] to logits [N, classes].

    ReLUs work in place and dropout is inverted, as torchvision has them. Its LRN stays within each tower at no cost:
    cutting the maps into one chunk a tower would copy every map, and hold the baseline back.
    """
    return single_device_model(network, dropout="inverted")
