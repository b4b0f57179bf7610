"""Where a network's towers exchange activations, read from its table."""

from dataclasses import dataclass

from alexnet_mp.network import rows
from alexnet_mp.network.table import Network


@dataclass(frozen=True)
class CrossingPoint:
    """Where a stage begins: the row whose input crosses, and whether gradients come back."""

    name: str
    has_backward: bool


def crossing_points(network: Network) -> list[CrossingPoint | None]:
    """One entry a stage: None for the first, which reads the image, and for all stages of a network of one tower."""
    found: list[CrossingPoint | None] = [None]
    for name, row in network.rows.items():
        if isinstance(row, rows.Classifier):
            found.append(CrossingPoint(name, has_backward=False))
        elif rows.reads_of(row) == "both":
            found.append(CrossingPoint(name, has_backward=True))
    return found if network.towers > 1 else [None] * len(found)
