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
class Local:
    """A locally-connected layer: a convolution whose weights are not shared, each position has its own.

    So the authors had it in their networks for CIFAR-10 (cuda-convnet, layers-conv-local-13pct.cfg, `type=local`); the
    biases are not shared either. The numbers are those of `Conv`. In networks of one tower only.
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
class Classifier:
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
    """Normalization across `n` adjacent maps of the same tower (paper §3.3).

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
    """Normalization over a `size` x `size` window of the same map; alpha multiplies the mean (layers-145.cfg)."""

    size: int
    k: float
    alpha: float
    beta: float


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalization of every map or unit of a tower, with a scale and a shift to learn (Ioffe and Szegedy 2015).

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
class GlobalAveragePool:
    """The mean of every map, as large as it may be, as a map of one pixel (Lin et al. 2013; GoogLeNet)."""


@dataclass(frozen=True)
class Dropout:
    """Dropout with probability `p`.

    Not inverted, the authors' way (paper §4.2): kept values pass unscaled in training, and in evaluation all are
    multiplied by 1 - p. Inverted: kept values are divided by 1 - p in training, and evaluation changes nothing.
    """

    p: float = 0.5
    inverted: bool = False


ConvolutionRow = Conv | Local

WeightedRow = ConvolutionRow | FullyConnected | Classifier

LearnedRow = WeightedRow | BatchNorm

PoolingRow = MaxPool | AveragePool

LayerRow = LearnedRow | Relu | Tanh | LocalResponseNorm | SpatialNorm | PoolingRow | GlobalAveragePool | Dropout


@dataclass(frozen=True)
class Branches:
    """Runs of rows that all begin with this row's input, and whose outputs are concatenated over the maps (Inception).

    `branches` maps a branch's name to its rows by name, all reading their own tower. A row's full name has that of
    this row and of its branch in front, `inception3a_3x3_reduce`; so it is called in recipes and checkpoints.
    """

    branches: dict[str, dict[str, LayerRow]]


@dataclass(frozen=True)
class Auxiliary:
    """A classifier of its own on the activations at this place, which pass on as they are (GoogLeNet, arXiv 1409.4842).

    It takes part in training alone: `loss_weight` times its cross-entropy is added to the loss. `layers` are its rows;
    the last one is a `classifier` of the network's classes. A row's full name has that of this row in front,
    `aux4a_fc`. In networks of one tower only.
    """

    loss_weight: float
    layers: dict[str, LayerRow]


Row = LayerRow | Branches | Auxiliary

KINDS: dict[str, type[Row]] = {
    "conv": Conv,
    "local": Local,
    "fc": FullyConnected,
    "classifier": Classifier,
    "relu": Relu,
    "tanh": Tanh,
    "lrn": LocalResponseNorm,
    "spatial_norm": SpatialNorm,
    "batch_norm": BatchNorm,
    "maxpool": MaxPool,
    "avgpool": AveragePool,
    "global_avgpool": GlobalAveragePool,
    "dropout": Dropout,
    "branches": Branches,
    "auxiliary": Auxiliary,
}


def reads_of(row: Row) -> Reads:
    """What a row reads; a row without weights, and the summed classifier, read their own tower."""
    return row.reads if isinstance(row, ConvolutionRow | FullyConnected) else "own"


def gives_new_memory(row: Row | None) -> bool:
    """Whether only the next row needs what this one gives, no gradient either, so that a ReLU may overwrite it.

    None stands before the first row: the image is the caller's.
    """
    return row is not None and not isinstance(row, Relu | Tanh | Dropout | Auxiliary)


def kind_of(row: Row) -> str:
    """Return the word that names this kind of row in a YAML table."""
    return next(kind for kind, cls in KINDS.items() if type(row) is cls)


def rows_within(name: str, row: Row) -> dict[str, LayerRow]:
    """The rows that compute something by their full names, in order: `row` itself, or those inside of it."""
    match row:
        case Branches():
            inside = ((f"{name}_{branch}", layers) for branch, layers in row.branches.items())
            return {f"{before}_{layer}": each for before, layers in inside for layer, each in layers.items()}
        case Auxiliary():
            return {f"{name}_{layer}": each for layer, each in row.layers.items()}
        case _:
            return {name: row}


Convention = Literal["authors", "inverted"]
