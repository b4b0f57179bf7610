"""The 2012 AlexNet as its authors trained it: one network in two towers, which meet at conv3 and the fc layers."""

from alexnet_mp.common.openmp import choose_wait_policy

choose_wait_policy()  # before the next imports load torch

from alexnet_mp.checkpoint.convert.layout import from_single_device, to_single_device
from alexnet_mp.checkpoint.files import load_checkpoint
from alexnet_mp.checkpoint.names import find_checkpoint
from alexnet_mp.common.cli import compose
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.build import build_model
from alexnet_mp.model.features import features
from alexnet_mp.model.single_device import single_device_model
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.table import Network, load_network
from alexnet_mp.parallel.mesh import open_mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.training.loss import LossOnEveryTower
from alexnet_mp.training.optimizer import PaperSGD
from alexnet_mp.training.recipe import Recipe
from alexnet_mp.training.train import train
from alexnet_mp.version import __version__

__all__ = [
    "ConfigurationError",
    "LossOnEveryTower",
    "Network",
    "PaperSGD",
    "Recipe",
    "TowerModel",
    "__version__",
    "build_model",
    "choose_placement",
    "compose",
    "features",
    "find_checkpoint",
    "from_single_device",
    "load_checkpoint",
    "load_network",
    "open_mesh",
    "single_device_model",
    "to_single_device",
    "train",
]
