"""The 2012 AlexNet as its authors trained it: one network in two towers, which meet at conv3 and the fc layers."""

from alexnet_mp.checkpoint.convert.layout import from_single_device, to_single_device
from alexnet_mp.checkpoint.files import load_checkpoint
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.build import build_model
from alexnet_mp.model.single_device import single_device_model
from alexnet_mp.network.table import Network, load_network
from alexnet_mp.version import __version__

__all__ = [
    "ConfigurationError",
    "Network",
    "__version__",
    "build_model",
    "from_single_device",
    "load_checkpoint",
    "load_network",
    "single_device_model",
    "to_single_device",
]
