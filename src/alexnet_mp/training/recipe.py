"""The recipe: everything of training that is not the network."""

from dataclasses import dataclass, field, replace
from math import inf, sqrt
from pathlib import Path
from typing import Annotated, Literal

from alexnet_mp.common.presets import read_preset
from alexnet_mp.common.schema import Bound, NonNegativeInt, PositiveInt, from_mapping
from alexnet_mp.data.augmentation import Augmentation
from alexnet_mp.data.loader import Order
from alexnet_mp.data.preprocessing import InputScale
from alexnet_mp.errors import ConfigurationError

Rate = Annotated[float, Bound("be a number of at least 0", lambda value: 0 <= value < inf)]
Kind = Literal["weights", "biases"]
KINDS: tuple[Kind, ...] = ("weights", "biases")
BatchScaling = Literal["fixed", "linear", "square_root"]


@dataclass(frozen=True)
class Rates:
    """Learning rate ε and weight decay of one kind of parameter."""

    learning_rate: Rate
    weight_decay: Rate


@dataclass(frozen=True)
class LayerRates:
    """Per-layer overrides; None means the recipe's default."""

    weights: Rates | None = None
    biases: Rates | None = None


@dataclass(frozen=True)
class Milestone:
    """From the end of epoch `after_epoch` (from 1) on, these parameters have this learning rate; 0 freezes.

    `layers` are names of rows, or None for all; `kind` is weights, biases or both.
    """

    after_epoch: int
    learning_rate: Rate
    kind: Literal["weights", "biases", "both"] = "both"
    layers: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Plateau:
    """Multiply all learning rates by `factor` when the validation error has not fallen for `patience` epochs.

    At most `drops` times: the paper's fell three times (§5).
    """

    factor: Annotated[float, Bound("be more than 0 and less than 1", lambda value: 0 < value < 1)] = 0.1
    patience: PositiveInt = 5
    drops: NonNegativeInt = 3


@dataclass(frozen=True)
class Schedule:
    """`milestones` in order, or `plateau`; with neither the learning rates stay."""

    milestones: tuple[Milestone, ...] = ()
    plateau: Plateau | None = None

    def __post_init__(self) -> None:
        """Raises ConfigurationError for both at once, and for milestones that are not in order."""
        epochs = [milestone.after_epoch for milestone in self.milestones]
        if epochs != sorted(epochs):
            raise ConfigurationError(f"recipe.schedule.milestones are not in order of after_epoch: {epochs}")
        if self.milestones and self.plateau:
            raise ConfigurationError("recipe.schedule has both milestones and plateau; set one of them to null")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; `batch_size` is the global batch, over all replicas (but see `scaled`).

    `input` is the scale of what the network reads. It stands here because scale, initial weights and learning rate
    belong together. `order` is of the training images: `shuffled` anew for each epoch, or `fixed` (the original code;
    a pack has been shuffled once when it was made).
    """

    name: str
    batch_size: PositiveInt
    epochs: PositiveInt
    momentum: Annotated[float, Bound("be at least 0 and less than 1", lambda value: 0 <= value < 1)]
    weights: Rates
    biases: Rates
    input: InputScale = field(default_factory=InputScale)
    order: Order = "shuffled"
    augmentation: Augmentation = field(default_factory=Augmentation)
    layers: dict[str, LayerRates] = field(default_factory=dict)
    schedule: Schedule = field(default_factory=Schedule)

    @staticmethod
    def load(name_or_path: str | Path) -> "Recipe":
        """Read a recipe: the name of a preset (`digits`, `paper`, ...) or the path of a YAML file.

        Raises ConfigurationError for an unknown preset, a file that cannot be read, and a value that cannot be.
        """
        return from_mapping(Recipe, read_preset("recipe", name_or_path, "recipe", "recipe"), "recipe")

    def rates(self, layer: str, kind: Kind) -> Rates:
        """The rates that one layer's parameters of one kind start with."""
        of_layer = self.layers.get(layer, LayerRates())
        if kind == "weights":
            return of_layer.weights or self.weights
        return of_layer.biases or self.biases

    def scaled(self, rule: BatchScaling, replicas: int) -> "Recipe":
        """The recipe in force on so many replicas.

        fixed: this one; the global batch is the recipe's, whatever the number of replicas R. Otherwise the recipe's
        batch is one replica's and the global one R times that. linear: every learning rate, those of milestones too,
        times R; "the heuristic that I found to work the best" (Krizhevsky 2014, arXiv 1404.5997, section 5), and the
        rule of Goyal et al. 2017 (arXiv 1706.02677). square_root: times the root of R, with which the variance of an
        update stays (Krizhevsky 2014, what "theory suggests"). Decay takes ε times weight decay of a weight each step
        (paper §5), and an epoch has R times fewer steps: so that an epoch decays as much as before, weight decay stays
        with linear, and takes the other root of R with square_root. A plateau's factor is a ratio and stays.
        """
        if rule == "fixed":
            return self
        rate = replicas if rule == "linear" else sqrt(replicas)
        decay = replicas / rate

        def times(rates: Rates) -> Rates:
            return Rates(rates.learning_rate * rate, rates.weight_decay * decay)

        layers = {
            name: LayerRates(each.weights and times(each.weights), each.biases and times(each.biases))
            for name, each in self.layers.items()
        }
        milestones = tuple(replace(each, learning_rate=each.learning_rate * rate) for each in self.schedule.milestones)
        return replace(
            self,
            batch_size=self.batch_size * replicas,
            weights=times(self.weights),
            biases=times(self.biases),
            layers=layers,
            schedule=replace(self.schedule, milestones=milestones),
        )

    def check(self, layers: list[str], replicas: int) -> None:
        """Raise ConfigurationError if the recipe does not fit the network's `layers` or the replicas."""
        if self.batch_size % replicas:
            raise ConfigurationError(
                f"recipe.batch_size={self.batch_size} cannot be shared equally by {replicas} replicas; "
                f"use a multiple, for example {self.batch_size // replicas * replicas or replicas}"
            )
        named = set(self.layers).union(*(milestone.layers or () for milestone in self.schedule.milestones))
        for name in sorted(named - set(layers)):
            raise ConfigurationError(f"the recipe names layer {name!r}; layers with weights: {', '.join(layers)}")
