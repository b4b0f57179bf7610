"""Notices a loss that stands at the entropy of the labels, and says once what that means and what ends it."""

from math import inf

import numpy as np
from numpy.typing import NDArray

from alexnet_mp.network.rows.weighted import Conv
from alexnet_mp.network.table import Network

DISTANCE, STEPS = 0.02, 500  # so near to the entropy, as a part of it, and for so long
BLOCK = 50  # steps, whose mean loss is looked at
WIDE = 0.03  # about He's std in conv3 to conv5, with which the paper's network learned after 90 steps in place of 880
EXPLODED = 3  # a loss of so many times the entropy


class StallWatch:
    """Looks at the losses of a run whose training images have these `labels` [n]; it never stops the run."""

    def __init__(self, labels: NDArray[np.int64], network: Network) -> None:
        shares = np.unique(labels, return_counts=True)[1] / len(labels)
        self._entropy = float(-(shares * np.log(shares)).sum())
        self._network = network
        self._said = self._entropy == 0
        self._block, self._losses, self._since, self._highest = -1, [inf], 0, 0.0

    def look(self, step: int, loss: float) -> str:
        """Note the loss of a step, counted from 1; returns what to tell the user, once, and else nothing."""
        if self._said:
            return ""
        if (step - 1) // BLOCK != self._block:
            mean = sum(self._losses) / len(self._losses)
            if abs(mean - self._entropy) > DISTANCE * self._entropy:
                self._since = step - 1
            self._block, self._losses = (step - 1) // BLOCK, []
            self._said = step - 1 - self._since >= STEPS
        self._losses.append(loss)
        self._highest = max(self._highest, loss)
        return self._words(step - 1 - self._since) if self._said else ""

    def _words(self, steps: int) -> str:
        stds = [f"network.layers.{name}.std=he" for name in _narrow(self._network)]
        exploded = f"; it was {self._highest:.3g} before, and a lower learning rate may keep it from that"
        return (
            f"the loss has stood within {DISTANCE:.0%} of {self._entropy:.3f} for {steps} steps: the entropy of the "
            "labels, the loss of a network that tells no image from another. The run goes on. AlexNets of others stood "
            "so for 150 to 10,000 steps and then learned, or stood for ever. What ends it is wider initial weights in "
            f"the middle layers{', in another run_dir: ' if stds else ''}{' '.join(stds)}; another seed or a higher "
            "learning rate did not in the narrow runs that were tried"
            f"{exploded if self._highest > EXPLODED * self._entropy else ''}"
        )


def _narrow(network: Network) -> list[str]:
    """The third convolution and those after it, if their weights begin with a std of less than `WIDE`."""
    convolutions = [(name, row.std) for name, row in network.rows.items() if isinstance(row, Conv)][2:]
    return [name for name, std in convolutions if std != "he" and std < WIDE]
