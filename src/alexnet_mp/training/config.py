"""The configuration of a training run, checked key by key."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from alexnet_mp.common.device import Precision
from alexnet_mp.common.schema import PositiveFloat, PositiveInt, from_mapping
from alexnet_mp.data.load import DataSettings
from alexnet_mp.data.loader import LoaderSettings
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import Network, parse_network
from alexnet_mp.parallel.placement import LinkChoice
from alexnet_mp.training.finetune import InitialWeights
from alexnet_mp.training.recipe import BatchScaling, Recipe


@dataclass(frozen=True)
class ProfileSettings:
    """How many steps of a run are traced; see `conf/train.yaml`."""

    steps: PositiveInt | None = None


@dataclass(frozen=True)
class TrainSettings:
    """Everything that `launch/train.py` can be told; see `conf/train.yaml` for the meaning of each key."""

    experiment_name: str
    network: Network
    recipe: Recipe
    data: DataSettings
    loader: LoaderSettings
    towers: int | None
    placement: str
    device: str
    seed: int
    initial_weights: InitialWeights
    batch_scaling: BatchScaling
    precision: Precision
    crossing_dtype: Literal["float16", "bfloat16"] | None
    compile: Literal["auto", "on", "off"]
    threads: PositiveInt | None
    run_dir: str | None
    log_every_steps: PositiveInt | None
    keep_checkpoints: PositiveInt
    checkpoint_minutes: PositiveFloat
    checkpoint_steps: PositiveInt | None
    timeout_seconds: PositiveFloat
    link: LinkChoice = "auto"
    profile: ProfileSettings = field(default_factory=ProfileSettings)
    training_error: bool = False
    dry_run: bool | str = False

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights and of the images."""
        return torch.float64 if self.precision == "float64" else torch.float32

    @property
    def autocast(self) -> torch.dtype | None:
        """What convolutions and matrix products run in; None: the dtype of the weights."""
        return torch.bfloat16 if self.precision == "bf16" else None

    @property
    def wire_dtype(self) -> torch.dtype | None:
        """What activations and gradients are rounded to when they cross; None: not at all."""
        return {"float16": torch.float16, "bfloat16": torch.bfloat16, None: None}[self.crossing_dtype]

    def on_replicas(self, replicas: int) -> "TrainSettings":
        """The same with the batch and the learning rates in force on so many replicas; see `Recipe.scaled`."""
        return replace(self, recipe=self.recipe.scaled(self.batch_scaling, replicas))


def gives_classes(overrides: Iterable[str]) -> bool:
    """True if overrides say how many classes the network has; otherwise it has as many as the data."""
    return any(override.lstrip("+").startswith("network.classes=") for override in overrides)


def parse_train_settings(configuration: Mapping[str, Any]) -> TrainSettings:
    """Check a composed configuration. Raises ConfigurationError that names the key, unknown ones included."""
    network = parse_network(configuration.get("network"))
    settings = from_mapping(TrainSettings, configuration, "", ready={"network": network})
    if settings.towers is not None:
        settings = replace(settings, network=network.cut_into(settings.towers))
    network_cost(settings.network)  # a window that does not fit is found here, before any process waits for another
    settings.recipe.augmentation.check_channels(settings.network.image[0])
    return settings
