"""Rows without a product: non-linearities, normalizations, pooling and dropout."""

from dataclasses import dataclass, replace
from math import prod
from typing import Annotated, Literal

from alexnet_mp.common.schema import Bound
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.rows.base import ODD, POSITIVE, Place, Row, RowCost, row_kind
from alexnet_mp.network.rows.weighted import Count, Pad

OddCount = Annotated[int, POSITIVE, ODD]
Epsilon = Annotated[float, Bound("be positive", lambda value: value > 0)]


@row_kind("relu")
@dataclass(frozen=True)
class Relu(Row):
    """max(0, x) (paper §3.1)."""

    gives_new_memory = False
    scales_with_input = True

    def in_words(self) -> str:
        return "ReLU"


@row_kind("tanh")
@dataclass(frozen=True)
class Tanh(Row):
    """tanh(x), "the standard way" before ReLU (paper §3.1)."""

    gives_new_memory = False


@row_kind("lrn")
@dataclass(frozen=True)
class LocalResponseNorm(Row):
    """Normalization across `n` adjacent maps of the same tower (paper §3.3).

    `alpha_scales` chooses between the paper's text, where alpha multiplies the sum of squares, and the original code,
    where it multiplies their mean, (alpha/n) * sum.
    """

    n: OddCount
    k: float
    alpha: float
    beta: float
    alpha_scales: Literal["sum", "mean"]

    def cost(self, at: Place) -> RowCost:
        at.sides  # noqa: B018  raises if there are none
        # A square added for each map in the window, a power, a product.
        return replace(super().cost(at), operations_each=self.n + 2)

    def in_words(self) -> str:
        return f"LRN over {self.n} maps (k {self.k:g}, α {self.alpha:g} × the {self.alpha_scales}, β {self.beta:g})"


@row_kind("spatial_norm")
@dataclass(frozen=True)
class SpatialNorm(Row):
    """Normalization over a `size` x `size` window of the same map; alpha multiplies the mean (layers-145.cfg)."""

    size: OddCount
    k: float
    alpha: float
    beta: float

    def cost(self, at: Place) -> RowCost:
        at.sides  # noqa: B018  raises if there are none
        return replace(super().cost(at), operations_each=self.size**2 + 2)

    def in_words(self) -> str:
        return f"spatial normalization {self.size}×{self.size} (k {self.k:g}, α {self.alpha:g}, β {self.beta:g})"


@row_kind("batch_norm")
@dataclass(frozen=True)
class BatchNorm(Row):
    """Batch normalization of every map or unit of a tower, with a scale and a shift to learn (Ioffe and Szegedy 2015).

    Not of 2012: it stands here for comparison. In training it uses the mean and variance of the batch, in evaluation
    running ones, to which every batch gives its share `momentum`; `epsilon` is added to the variance.
    """

    momentum: Annotated[float, Bound("be more than 0 and at most 1", lambda value: 0 < value <= 1)] = 0.1
    epsilon: Epsilon = 1e-5

    def cost(self, at: Place) -> RowCost:
        of_maps = at.inputs[:1]
        return replace(
            super().cost(at),
            parameters_of_a_tower={"weight": of_maps, "bias": of_maps},
            buffers_of_a_tower={"running_mean": of_maps, "running_var": of_maps},
            operations_each=1,
        )

    def in_words(self) -> str:
        return "batch normalization"


@row_kind("group_norm")
@dataclass(frozen=True)
class GroupNorm(Row):
    """Normalization over `groups` groups of a tower's maps, with a scale and a shift to learn (Wu and He 2018).

    Each image by itself, in training as in evaluation. One group is layer normalization over a tower's maps (Ba et al.
    2016), as many groups as maps are instance normalization (Ulyanov et al. 2016). `epsilon` is added to the variance.
    """

    groups: Count
    epsilon: Epsilon = 1e-5

    def cost(self, at: Place) -> RowCost:
        maps = at.inputs[0]
        if maps % self.groups:
            raise ConfigurationError(
                f"{at.name}: {self.groups} groups do not divide the {maps} maps of a tower; "
                f"choose groups from {[n for n in range(1, maps + 1) if maps % n == 0]}"
            )
        learned = {"weight": (maps,), "bias": (maps,)}
        return replace(super().cost(at), parameters_of_a_tower=learned, operations_each=1)

    def in_words(self) -> str:
        return f"group normalization, {self.groups} groups"


@dataclass(frozen=True)
class PoolingRow(Row):
    """Windows of `size` x `size` pixels, one every `stride`; they overlap if `stride` is less (paper §3.4).

    `pad` is how far windows may hang over (the top and left edge, the bottom and right edge), in pixels that do not
    count.
    """

    size: Count
    stride: Count
    pad: Pad = (0, 0)

    scales_with_input = True
    word = ""

    def cost(self, at: Place) -> RowCost:
        if max(self.pad) >= self.size:
            raise ConfigurationError(
                f"network.layers.{at.name}.pad is {self.pad}, must be less than size, {self.size}, so that every "
                "window has something inside"
            )
        windows = at.windows(self.size, self.stride, self.pad)
        return replace(super().cost(at), output_shape=(at.inputs[0], *windows), operations_each=self.size**2)

    def in_words(self) -> str:
        return f"{self.word} pooling {self.size}×{self.size}, stride {self.stride}"


@row_kind("maxpool")
@dataclass(frozen=True)
class MaxPool(PoolingRow):
    """Max pooling."""

    word = "max"


@row_kind("avgpool")
@dataclass(frozen=True)
class AveragePool(PoolingRow):
    """Average pooling, over that part of a window which lies inside the maps."""

    word = "average"


@row_kind("global_avgpool")
@dataclass(frozen=True)
class GlobalAveragePool(Row):
    """The mean of every map, as large as it may be, as a map of one pixel (Lin et al. 2013; GoogLeNet)."""

    in_branches = False
    follows = False
    scales_with_input = True

    def cost(self, at: Place) -> RowCost:
        pixels = prod(at.sides)
        return replace(super().cost(at), output_shape=(at.inputs[0], 1, 1), operations_each=pixels)


@row_kind("dropout")
@dataclass(frozen=True)
class Dropout(Row):
    """Dropout with probability `p`.

    Not inverted, the authors' way (paper §4.2): kept values pass unscaled in training, and in evaluation all are
    multiplied by 1 - p. Inverted: kept values are divided by 1 - p in training, and evaluation changes nothing.
    """

    p: Annotated[float, Bound("be at least 0 and less than 1", lambda value: 0 <= value < 1)] = 0.5
    inverted: bool = False

    in_branches = False
    gives_new_memory = False
    scales_with_input = True

    def in_words(self) -> str:
        return f"dropout {self.p:g}{', inverted' if self.inverted else ''}"
