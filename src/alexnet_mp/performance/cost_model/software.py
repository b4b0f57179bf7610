"""How much of a GPU's peak each generation of software reaches: one rule, not one number a device.

The rule. A generation's convolution fraction is the one that makes this model give the published time of Overfeat
(fast), forward and backward, batch 128, on a Titan X (Maxwell) at its boost clock, 6.60 TFLOP/s (convnet-benchmarks,
README.md, "Imagenet Winners Benchmarking"). Overfeat and not AlexNet, so that no timing that we predict was used; and
Overfeat of the networks there because its kernels are AlexNet's (11x11/4, 5x5, 3x3). The fraction is then carried
unchanged to every device that ran this software. `python launch/plan.py check=true` prints what error remains.

A fraction counts the operations of the definition, so that Winograd's and Fourier's algorithms can exceed 1.
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
