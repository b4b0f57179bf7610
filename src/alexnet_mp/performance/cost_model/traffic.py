"""How often each kind of row passes over its maps in memory: the constants to correct when a profile says otherwise.

A pass is one read or one write of the row's input. Where a row was profiled on a device, its description overrides the
sum of both directions (`passes:`); these are what kernels need that do a row's work in one go, as on a GPU.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Passes:
    """Reads and writes of a row's input, in units of its size, and the kernels that do them."""

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
    # Read, write, and keep the sum of squares; backward reads gradient, input, output and sum, and writes. The
    # neighboring maps come out of the cache.
    "lrn": Passes(3, 5),
    "spatial_norm": Passes(3, 5),
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
    "dropout": Passes(2.25, 2.25),
    # A layer that reads both towers adds its two halves: two reads and a write of its output; they share the gradient.
    "combine": Passes(3, 0, kernels=1),
    # Of a parameter in float32: read weight, gradient and momentum, write weight and momentum.
    "optimizer": Passes(5, 0, kernels=1),
}

# A product forward, and backward one for the weights and one for the inputs, each with its bias.
KERNELS_OF_A_PRODUCT = 3
