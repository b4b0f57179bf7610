"""The baseline: the same network in stock PyTorch, trained with `torch.optim.SGD`."""

import torch
from torch import nn

from alexnet_mp.model.single_device import STOCK_PARTS, single_network
from alexnet_mp.performance.benchmark.measurement import Task
from alexnet_mp.performance.benchmark.paper_recipe import paper_recipe
from alexnet_mp.performance.benchmark.variants.replicas import replicated


def stock_sgd(model: nn.Module, task: Task) -> torch.optim.Optimizer:
    """PyTorch's SGD with the numbers of the paper."""
    recipe = paper_recipe(task.batch_size)
    rates = recipe.weights
    return torch.optim.SGD(model.parameters(), rates.learning_rate, recipe.momentum, weight_decay=rates.weight_decay)


# As a PyTorch user would have it: ReLUs work in place and dropout is inverted, as torchvision has them. The LRN stays
# within each tower at no cost: one chunk a tower would copy every map, and hold the baseline back.
stock_network_whole = replicated(lambda task: single_network(task.network, STOCK_PARTS), stock_sgd)
