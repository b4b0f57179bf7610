"""Puts a network into words, as a whole and layer by layer."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from alexnet_mp.common.text import count
from alexnet_mp.network.costs import NetworkCost, RowCost, network_cost
from alexnet_mp.network.rows import (
    Auxiliary,
    AveragePool,
    BatchNorm,
    Branches,
    Classifier,
    Conv,
    Dropout,
    FullyConnected,
    LocalResponseNorm,
    MaxPool,
    Relu,
    Row,
    SpatialNorm,
    Tanh,
    kind_of,
    reads_of,
    rows_within,
)
from alexnet_mp.network.table import Network

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_IN_PASSING = Relu | Tanh | LocalResponseNorm | SpatialNorm | BatchNorm | MaxPool | AveragePool | Dropout


@dataclass(frozen=True)
class LayerInWords:
    """A layer with weights and what follows it up to the next, in words; numbers are of all towers."""

    name: str
    what: str
    reads: str
    then: str
    output: str
    parameters: int


def number_in_words(number: int) -> str:
    """`two` for 2; digits from thirteen on."""
    return _NUMBERS[number] if 0 <= number < len(_NUMBERS) else f"{number:,}"


def listed(words: Sequence[str]) -> str:
    """`conv3, fc6 and fc7`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "nothing"


def crossing_rows(costs: NetworkCost) -> list[RowCost]:
    """The layers that read what crosses between the towers."""
    return [row for row in costs.rows if row.crossing_floats_forward or row.crossing_floats_backward]


def network_in_words(network: Network) -> str:
    """The network as a whole."""
    costs = network_cost(network.without_auxiliaries())
    channels, height, width = network.image
    meets = [row.name for row in crossing_rows(costs)]
    towers = "one tower"
    if network.towers > 1:
        towers = f"{number_in_words(network.towers)} towers that meet at {listed(meets)}"
    aside = network_cost(network).parameters - costs.parameters
    more = f", and {aside:,} parameters in classifiers of training alone" if aside else ""
    of_each = f" ({' + '.join(f'{each:,}' for each in costs.parameters_per_tower)})" if network.towers > 1 else ""
    return (
        f"{network.name}: {towers}. It reads images of {channels} × {height} × {width} and tells "
        f"{count(network.classes, 'class', 'es')} apart with {costs.parameters:,} parameters{of_each} and "
        f"{costs.multiply_adds / 1e6:,.1f} million multiply-adds an image{more}."
    )


def layers_in_words(network: Network) -> list[LayerInWords]:
    """Each layer with weights, and what follows it."""
    costs = network_cost(network)
    found: dict[str, list[str]] = {}  # a layer's name -> the rows that belong to it, its own first
    for name, row in network.rows.items():
        passed = [layer for layer in found if not isinstance(network.rows[layer], Auxiliary)]
        if isinstance(row, _IN_PASSING) and passed:
            found[passed[-1]].append(name)  # what follows an auxiliary classifier does not read its logits
        else:
            found[name] = [name]
    told = []
    for name, rows in found.items():
        inside = [costs.row(full) for each in rows for full in rows_within(each, network.rows[each])]
        parameters = sum(cost.parameters(tower) for cost in inside for tower in range(network.towers))
        then = ", ".join(row_in_words(network.rows[each]) for each in rows[1:])
        last = costs.row(rows[-1]) if isinstance(network.rows[rows[-1]], Branches) else inside[-1]
        row = network.rows[name]
        output = " × ".join(map(str, last.output_shape))
        told.append(LayerInWords(name, row_in_words(row), _reads(network, row), then, output, parameters))
    return told


def row_in_words(row: Row) -> str:
    """One row of the table; kernels and units are of one tower."""
    match row:
        case Conv():
            stride = f", stride {row.stride}" if row.stride > 1 else ""
            pad = f", pad {row.pad[0]}" if row.pad[0] == row.pad[1] else f", pad {row.pad[0]} and {row.pad[1]}"
            return f"{row.kernels} kernels {row.size}×{row.size}{stride}{pad if any(row.pad) else ''}"
        case FullyConnected():
            return f"{row.units} units"
        case Classifier():
            return "one unit a class, summed over the towers"
        case Relu():
            return "ReLU"
        case Tanh():
            return "tanh"
        case LocalResponseNorm():
            return f"LRN over {row.n} maps (k {row.k:g}, α {row.alpha:g} × the {row.alpha_scales}, β {row.beta:g})"
        case SpatialNorm():
            return f"spatial normalization {row.size}×{row.size} (k {row.k:g}, α {row.alpha:g}, β {row.beta:g})"
        case BatchNorm():
            return "batch normalization"
        case MaxPool():
            return f"max pooling {row.size}×{row.size}, stride {row.stride}"
        case AveragePool():
            return f"average pooling {row.size}×{row.size}, stride {row.stride}"
        case Dropout():
            return f"dropout {row.p:g}{', inverted' if row.inverted else ''}"
        case Branches():
            return f"{count(len(row.branches), 'branch', 'es')}, joined"
        case Auxiliary():
            return f"classifier in training alone, {row.loss_weight:g} of its loss counts"
        case _:
            numbers = {key: value for key, value in dataclasses.asdict(row).items() if isinstance(value, int | float)}
            return f"{kind_of(row)} {', '.join(f'{key} {value:g}' for key, value in numbers.items())}".strip()


def _reads(network: Network, row: Row) -> str:
    reads = reads_of(row)
    if reads == "image":
        return "the image"
    if network.towers == 1:
        return "the layer before"
    return "both towers" if reads == "both" and network.towers == 2 else {"both": "all towers"}.get(reads, "its tower")
