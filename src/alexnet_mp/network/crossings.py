"""Where a network's towers exchange activations, read from its table."""

from dataclasses import dataclass

from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.rows import Classifier, Shape, reads_of
from alexnet_mp.network.table import Network


@dataclass(frozen=True)
class CrossingPoint:
    """Where a stage begins: the row whose input crosses, or whose partial logits do.

    `shape` is what one tower sends of an image. `has_backward`: its gradient comes back.
    """

    name: str
    shape: Shape
    has_backward: bool


def crossing_points(network: Network) -> list[CrossingPoint | None]:
    """One entry a stage: None for the first, which reads the image, and for all stages of a network of one tower."""
    costs = network_cost(network)
    found: list[CrossingPoint | None] = [None]
    for name, row in network.rows.items():
        if isinstance(row, Classifier):
            found.append(CrossingPoint(name, costs.row(name).output_shape, has_backward=False))
        elif reads_of(row) == "both":
            found.append(CrossingPoint(name, costs.row(name).input_shape, has_backward=True))
    return found if network.towers > 1 else [None] * len(found)
