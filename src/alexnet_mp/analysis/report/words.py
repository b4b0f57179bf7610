"""A run's configuration in words: its network layer by layer, its recipe, where it ran."""

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
from alexnet_mp.training.recipe import Milestone, Rates, Recipe

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


def recipe_in_words(recipe: Recipe) -> list[tuple[str, str]]:
    """What is done to the weights and with the images: a heading and a sentence each."""
    told = [
        ("Update", _update(recipe)),
        ("Learning rate", _learning_rate(recipe)),
        ("Length", f"{count(recipe.epochs, 'epoch')}; the images are {_order(recipe)}."),
        ("Input", _input(recipe)),
        ("Augmentation", _augmentation(recipe)),
    ]
    own = [
        f"{layer} has for its {kind} ε = {rates.learning_rate:g} and weight decay {rates.weight_decay:g}"
        for layer, each in recipe.layers.items()
        for kind, rates in (("weights", each.weights), ("biases", each.biases))
        if rates
    ]
    return [*told, *([("Layers of their own", "; ".join(own) + ".")] if own else [])]


def _update(recipe: Recipe) -> str:
    decay = f" − {recipe.weights.weight_decay:g} ε w" if recipe.weights.weight_decay else ""
    biases = "biases do not decay" if not recipe.biases.weight_decay else _decay_of_biases(recipe.biases)
    alike = recipe.biases.weight_decay == recipe.weights.weight_decay
    return (
        f"After every {count(recipe.batch_size, 'image')}, v ← {recipe.momentum:g} v{decay} − ε g and w ← w + v "
        f"(paper §5), g the mean gradient{'' if alike else f'; {biases}'}."
    )


def _decay_of_biases(rates: Rates) -> str:
    return f"biases decay by {rates.weight_decay:g}"


def _learning_rate(recipe: Recipe) -> str:
    weights, biases = recipe.weights.learning_rate, recipe.biases.learning_rate
    start = f"ε = {weights:g}" + ("" if weights == biases else f" for weights and {biases:g} for biases")
    milestones, plateau = recipe.schedule.milestones, recipe.schedule.plateau
    if milestones:
        return f"{start}; {'; '.join(_milestone(each) for each in milestones)}."
    if plateau:
        return (
            f"{start}; times {plateau.factor:g} when the validation error has not fallen for "
            f"{count(plateau.patience, 'epoch')}, at most {count(plateau.drops, 'time')}."
        )
    return f"{start}, from the first step to the last."


def _milestone(milestone: Milestone) -> str:
    kind = "" if milestone.kind == "both" else f" for {milestone.kind}"
    of = "" if milestone.layers is None else f" in {listed(milestone.layers)}"
    rate = f"{milestone.learning_rate:g}" if milestone.learning_rate else "0 (frozen)"
    return f"{rate}{kind}{of} after epoch {milestone.after_epoch}"


def _order(recipe: Recipe) -> str:
    return "in a new order every epoch" if recipe.order == "shuffled" else "in the order of the data, always"


def _input(recipe: Recipe) -> str:
    mean = "the mean image" if recipe.input.mean == "pixel" else "the center of the mean image, whatever the crop,"
    divisor = recipe.input.pixel_divisor
    scale = "not divided" if divisor == 1 else f"divided by {divisor:g}"
    return f"Pixels of 0 to 255 less {mean}{'' if mean.endswith(',') else ','} {scale}."


def _augmentation(recipe: Recipe) -> str:
    said = recipe.augmentation
    words = ["Random crops" if said.crop == "random" else "Center crops"]
    words.append("mirrored half of the time" if said.flip else "never mirrored")
    if said.shared_by > 1:
        words.append(f"shared by {said.shared_by} neighbors")
    if said.color:
        until = "" if said.color.until_epoch is None else f" until epoch {said.color.until_epoch}"
        words.append(f"with color noise of {said.color.std:g} along the principal colors{until}")
    return f"{', '.join(words)}."
