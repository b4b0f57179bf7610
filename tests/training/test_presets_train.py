"""Every network, experiment and ablation describes itself and trains two steps, with a part of its kernels."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np
import pytest
import torch

from alexnet_mp.data.augmentation import EpochDraws
from alexnet_mp.data.dataset import Statistics
from alexnet_mp.data.preprocessing import Batch, Preprocessing
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.describe import describe, layer_table
from alexnet_mp.network.table import Network
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.mesh import make_mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.training.config import TrainSettings, parse_train_settings
from alexnet_mp.training.loss import LossOnEveryTower
from alexnet_mp.training.optimizer import make_optimizer
from tests.support.presets import composed, name_in, presets

CLASSES, IMAGES = 5, 4


def of_experiment(ablation: str) -> str:
    """The experiment that an ablation is written for."""
    return "cifar10_study" if ablation.startswith("cifar10_study") else "imagenet_paper"


TRAINED = {
    **{f"network-{path.stem}": [f"network={path.stem}"] for path in presets("network")},
    **{f"experiment-{path.stem}": [f"experiment={path.stem}"] for path in presets("experiment")},
    **{
        f"ablation-{name}": [f"experiment={of_experiment(name)}", f"ablation={name}"]
        for name in (name_in("ablation", path) for path in presets("ablation"))
    },
    "ablation-of-the-study": ["experiment=cifar10_study", "ablation=no_lrn"],
    "ablation-of-the-original": ["experiment=imagenet_original_2012", "ablation=tanh"],
}


def narrowed(mapping: Any) -> Any:
    """A table with an eighth of the kernels and a 64th of the units, but eight at least."""
    if isinstance(mapping, Mapping):
        narrow = {key: narrowed(value) for key, value in mapping.items()}
        for count, part in (("kernels", 8), ("units", 64)):
            if isinstance(narrow.get(count), int):
                narrow[count] = max(8, narrow[count] // part)
        return narrow
    return mapping


def images_of(settings: TrainSettings, network: Network) -> tuple[torch.Tensor, torch.Tensor]:
    """Random pixels as the recipe hands them to the network, and labels."""
    channels, height, width = network.image
    random, recipe = np.random.default_rng(0), settings.recipe
    statistics = Statistics(
        random.uniform(90, 150, (height + 8, width + 8, channels)).astype(np.float32),
        np.array([14000.0, 1300.0, 400.0][:channels]),
        np.eye(channels),
    )
    draws = EpochDraws(recipe.augmentation, seed=0, epoch=0, samples=IMAGES, slack=(8, 8))
    samples = torch.arange(IMAGES)
    pixels = torch.from_numpy(random.integers(0, 256, (IMAGES, height, width, channels), dtype=np.uint8))
    batch = Batch(pixels, samples % CLASSES, draws.views(samples, samples), draws.alphas(samples))
    preprocess = Preprocessing(statistics, (height, width), recipe.input, settings.dtype, recipe.augmentation.color)
    return preprocess(batch, torch.device("cpu")), batch.labels


@pytest.mark.parametrize("overrides", TRAINED.values(), ids=TRAINED)
def test_every_preset_describes_itself_and_trains_two_steps(overrides: list[str]) -> None:
    configuration = composed("train", *overrides)
    whole = parse_train_settings(configuration)
    assert whole.network.name in layer_table(describe(whole.network))

    table = narrowed(configuration["network"])
    # In float64: with few kernels and the ImageNet initialization, gradients are too small for a float32 bias of 1.
    narrow = {**configuration, "network": {**table, "classes": CLASSES}, "precision": "float64"}
    settings = parse_train_settings(narrow)
    network, recipe = settings.network, settings.recipe
    recipe.check(network.learned_layers, replicas=1)
    placement = choose_placement("simulated", "cpu", network.towers, Launch())
    link = make_mesh(placement, timeout_seconds=60).link()
    model = TowerModel(network, placement, link, 0, settings.dtype, settings.wire_dtype).train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = make_optimizer(dict(model.towers.items()), recipe)
    images, labels = images_of(settings, network)
    for step in range(2):
        optimizer.zero_grad()
        losses = LossOnEveryTower(model)([images] * network.towers, [labels] * network.towers, step)
        torch.autograd.backward(losses)
        optimizer.step()
        assert all(isfinite(loss.item()) for loss in losses)
    still = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
    assert not still
    assert all(parameter.isfinite().all() for parameter in model.parameters())
