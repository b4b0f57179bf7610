"""What software makes of a device: how much of its peak each generation reaches, memory passes, and work of the host.

One rule, not one number a device. A generation's convolution fraction is the one that makes this model give the
published time of Overfeat (fast), forward and backward, batch 128, on a Titan X (Maxwell) at its boost clock, 6.60
TFLOP/s (convnet-benchmarks, README.md, "Imagenet Winners Benchmarking"). Overfeat and not AlexNet, so that no timing
that we predict was used; and Overfeat of the networks there because its kernels are AlexNet's (11x11/4, 5x5, 3x3). The
fraction is then carried unchanged to every device that ran this software. `python launch/plan.py check=true` prints
what error remains.

A fraction counts the operations of the definition, so that Winograd's and Fourier's algorithms can exceed 1.

A pass is one read or one write of the row's input. Where a row was profiled on a device, its description overrides the
sum of both directions (`passes:`); these are what kernels need that do a row's work in one go, as on a GPU.
"""

from dataclasses import dataclass
from typing import Annotated

from alexnet_mp.common.schema import Bound

Rate = Annotated[float, Bound("be positive", lambda value: value > 0)]
FRACTION = Bound("be between 0 and 1", lambda value: 0 <= value <= 1)


@dataclass(frozen=True)
class Achieved:
    """Fractions of the peak rate (`convolution`, `matmul`) and of the memory's bandwidth (`memory`)."""

    convolution: Rate  # may exceed the peak: Winograd's algorithm does fewer operations than are counted
    matmul: Rate
    memory: Annotated[Rate, FRACTION]


# Assumptions, the same for all: cuBLAS reaches 60 % in tall products of some hundred rows, streaming kernels 75 % of
# the memory's bandwidth. Together they decide under a tenth of AlexNet's step.
MATMUL, MEMORY = 0.6, 0.75

CUDA_CONVNET_2 = 0.448  # Overfeat 723 ms

GENERATIONS = {
    # Not timed on Overfeat. In the layer-wise table (five layers, forward and backward, April 2015) the first
    # cuda-convnet takes 1077 ms and the second 977, both on the Titan X.
    "cuda_convnet_2012": Achieved(CUDA_CONVNET_2 * 977 / 1077, MATMUL, MEMORY),
    "cuda_convnet2_2014": Achieved(CUDA_CONVNET_2, MATMUL, MEMORY),
    "cudnn_r2_2015": Achieved(0.398, MATMUL, MEMORY),  # Overfeat 810 ms
    "cudnn_r4_2016": Achieved(1.339, MATMUL, MEMORY),  # Overfeat 268 ms in float32; Winograd and Fourier transforms
    # An assumption: no published timing of AlexNet on these devices was found. Tensor cores want large products, and
    # conv1 with its three maps, and 48 to 192 kernels a tower, are small ones.
    "tensor_cores_2024": Achieved(0.35, 0.6, 0.8),
}


@dataclass(frozen=True)
class Passes:
    """Reads and writes of a row's input, in units of its size, and the operations that the host launches for them."""

    forward: float
    backward: float
    kernels: int = 2

    @property
    def total(self) -> float:
        return self.forward + self.backward


PASSES = {
    # Read, write; backward reads the gradient and the output, and writes.
    "relu": Passes(2, 3),
    "tanh": Passes(2, 3),
    # Statistics, then the map again and a write; backward sums over gradient and input, then reads both and writes.
    "batch_norm": Passes(3, 5, kernels=4),
    # A 3x3/2 window reads all, writes a quarter and eight bytes of index for each; backward clears all, reads gradient
    # and index, and adds into them.
    "maxpool": Passes(1.75, 2.75),
    # The same without an index.
    "avgpool": Passes(1.25, 1.25),
    # Read; backward writes.
    "global_avgpool": Passes(1, 1),
    # Branches are copied into one another's place: of the maps that come of it, read and write, and the same again.
    "branches": Passes(2, 2, kernels=5),
    # Read, a byte of mask, write; and the same again.
    # Operations: an estimate, of a mask drawn by a counter-based generator in integer operations on the device.
    "dropout": Passes(2.25, 2.25, kernels=20),
    # A layer that reads both towers adds its two halves: two reads and a write of its output; they share the gradient.
    "combine": Passes(3, 0, kernels=1),
    # Of a parameter in float32: read weight, gradient and momentum, write weight and momentum.
    "optimizer": Passes(5, 0, kernels=1),
}

# Of the other kinds, as of a normalization: read, write, and keep the sum of squares; backward reads gradient, input,
# output and sum, and writes. The neighboring maps come out of the cache. Operations: as counted of our LRN.
OTHER_PASSES = Passes(3, 5, kernels=25)

# A product forward, and backward one for the weights and one for the inputs, each with its bias.
KERNELS_OF_A_PRODUCT = 3

# Work of the host in every step. Operations were counted in steps of the presets `paper` and `original_2012` (a
# dispatch mode; views and allocations left out): some 110 forward, 157 backward and 20 of the update for both towers of
# `paper`, without input and masks. What follows is an estimate.
OPERATIONS_BESIDE = 20  # crop, flip and mean of a batch, loss and its gradient, autograd's own
OPERATIONS_OF_A_TRANSFER = 4  # one batch of sends and receives, or one bucket, from Python on

# One of the 2 (members - 1) hops of gloo's ring (gloo, allreduce.cc), by which all processes agree after each step. An
# estimate: two_epyc_cores was measured at 150 µs for a send and a receive over the loopback device, in a slow machine.
AGREEMENT_HOP_SECONDS = 100e-6
