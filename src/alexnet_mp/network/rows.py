"""One frozen dataclass for each kind of row in a network table. Counts of kernels and units are per tower."""

from dataclasses import dataclass
from typing import Literal

Reads = Literal["image", "own", "both"]


@dataclass(frozen=True)
class Conv:
    """A convolution with square kernels.

    `pad` is (top and left, bottom and right) in pixels of zeros. `std` is the standard deviation of the initial
    weights, or `he` for sqrt(2 / fan-in); `bias` the initial bias.
    """

    kernels: int
    size: int
    reads: Reads
    std: float | Literal["he"]
    bias: float
    stride: int = 1
    pad: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class FullyConnected:
    """A fully-connected layer; it flattens what it reads, channel by channel."""

    units: int
    reads: Reads
    std: float | Literal["he"]
    bias: float


@dataclass(frozen=True)
class SummedFullyConnected:
    """The classifier: every tower multiplies its own inputs, and the partial logits are summed across towers.

    Tower 0 owns the bias. The number of outputs is the table's `classes`.
    """

    std: float | Literal["he"]
    bias: float


@dataclass(frozen=True)
class Relu:
    """max(0, x) (paper §3.1)."""


@dataclass(frozen=True)
class Tanh:
    """tanh(x), "the standard way" before ReLU (paper §3.1)."""


@dataclass(frozen=True)
class LocalResponseNorm:
    """Normalisation across `n` adjacent maps of the same tower (paper §3.3).

    `alpha_scales` chooses between the paper's text, where alpha multiplies the sum of squares, and the original code,
    where it multiplies their mean, (alpha/n) * sum.
    """

    n: int
    k: float
    alpha: float
    beta: float
    alpha_scales: Literal["sum", "mean"]


@dataclass(frozen=True)
class SpatialNorm:
    """Normalisation over a `size` x `size` window of the same map; alpha multiplies the mean (layers-145.cfg)."""

    size: int
    k: float
    alpha: float
    beta: float


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation of every map or unit of a tower, with a scale and a shift to learn (Ioffe and Szegedy 2015).

    Not of 2012: it stands here for comparison. In training it uses the mean and variance of the batch, in evaluation
    running ones, to which every batch gives its share `momentum`; `epsilon` is added to the variance.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5


@dataclass(frozen=True)
class MaxPool:
    """Max pooling; windows overlap where `stride` is less than `size` (paper §3.4).

    `pad` is how far windows may hang over (the top and left edge, the bottom and right edge), in pixels that do not
    count.
    """

    size: int
    stride: int
    pad: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class AveragePool:
    """Average pooling, over that part of a window which lies inside the maps; see `MaxPool`."""

    size: int
    stride: int
    pad: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Dropout:
    """Dropout with probability `p`.

    Not inverted, the authors' way (paper §4.2): kept values pass unscaled in training, and in evaluation all are
    multiplied by 1 - p. Inverted: kept values are divided by 1 - p in training, and evaluation changes nothing.
    """

    p: float = 0.5
    inverted: bool = False


WeightedRow = Conv | FullyConnected | SummedFullyConnected

LearnedRow = WeightedRow | BatchNorm

PoolingRow = MaxPool | AveragePool

Row = LearnedRow | Relu | Tanh | LocalResponseNorm | SpatialNorm | PoolingRow | Dropout

KINDS: dict[str, type[Row]] = {
    "conv": Conv,
    "fc": FullyConnected,
    "summed_fc": SummedFullyConnected,
    "relu": Relu,
    "tanh": Tanh,
    "lrn": LocalResponseNorm,
    "spatial_norm": SpatialNorm,
    "batch_norm": BatchNorm,
    "maxpool": MaxPool,
    "avgpool": AveragePool,
    "dropout": Dropout,
}


def reads_of(row: Row) -> Reads:
    """What a row reads; a row without weights, and the summed classifier, read their own tower."""
    return row.reads if isinstance(row, Conv | FullyConnected) else "own"


def kind_of(row: Row) -> str:
    """Return the word that names this kind of row in a YAML table."""
    return next(kind for kind, cls in KINDS.items() if type(row) is cls)
