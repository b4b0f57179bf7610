"""Puts a network into words, as a whole and layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass

from alexnet_mp.common.text import count
from alexnet_mp.network.costs import NetworkCost, network_cost
from alexnet_mp.network.rows import Auxiliary, Branches, Row, RowCost, reads_of
from alexnet_mp.network.table import Network

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


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
        if row.follows and passed:
            found[passed[-1]].append(name)  # what follows an auxiliary classifier does not read its logits
        else:
            found[name] = [name]
    told = []
    for name, rows in found.items():
        inside = [costs.row(full) for each in rows for full in network.rows[each].within(each)]
        parameters = sum(cost.parameters(tower) for cost in inside for tower in range(network.towers))
        then = ", ".join(network.rows[each].in_words() for each in rows[1:])
        last = costs.row(rows[-1]) if isinstance(network.rows[rows[-1]], Branches) else inside[-1]
        row = network.rows[name]
        output = " × ".join(map(str, last.output_shape))
        told.append(LayerInWords(name, row.in_words(), _reads(network, row), then, output, parameters))
    return told


def _reads(network: Network, row: Row) -> str:
    reads = reads_of(row)
    if reads == "image":
        return "the image"
    if network.towers == 1:
        return "the layer before"
    return "both towers" if reads == "both" and network.towers == 2 else {"both": "all towers"}.get(reads, "its tower")
