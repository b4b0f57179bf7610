"""A run's configuration in words: its network layer by layer, its recipe, where it ran."""

from collections.abc import Sequence
from dataclasses import dataclass

from alexnet_mp.common.text import count
from alexnet_mp.network.costs import NetworkCost, network_cost
from alexnet_mp.network.rows import Auxiliary, Branches, Row, RowCost, reads_of
from alexnet_mp.network.table import Network
from alexnet_mp.training.recipe import Milestone, Rates, Recipe

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@dataclass(frozen=True)
class Layer:
    """A layer with weights and what follows it up to the next, in words; numbers are of all towers."""

    name: str
    what: str
    reads: str
    then: str
    output: str
    parameters: int


def in_words(number: int) -> str:
    """`two` for 2; digits from thirteen on."""
    return NUMBERS[number] if 0 <= number < len(NUMBERS) else f"{number:,}"


def listed(words: Sequence[str]) -> str:
    """`conv3, fc6 and fc7`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "nothing"


def crossing_points_in_words(costs: NetworkCost) -> list[RowCost]:
    """The layers into which something crosses between the towers."""
    return [row for row in costs.rows if row.crossing_floats_forward or row.crossing_floats_backward]


def network_sentences(network: Network) -> str:
    """The network as a whole."""
    costs = network_cost(network.without_auxiliaries())
    channels, height, width = network.image
    meets = [row.name for row in crossing_points_in_words(costs)]
    towers = "one tower"
    if network.towers > 1:
        towers = f"{in_words(network.towers)} towers that meet at {listed(meets)}"
    aside = network_cost(network).parameters - costs.parameters
    more = f", and {aside:,} parameters in classifiers of training alone" if aside else ""
    of_each = f" ({' + '.join(f'{each:,}' for each in costs.parameters_per_tower)})" if network.towers > 1 else ""
    return (
        f"{network.name}: {towers}. It reads images of {channels} × {height} × {width} and tells "
        f"{count(network.classes, 'class', 'es')} apart with {costs.parameters:,} parameters{of_each} and "
        f"{costs.multiply_adds / 1e6:,.1f} million multiply-adds an image{more}."
    )


def layers(network: Network) -> list[Layer]:
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
        told.append(Layer(name, row.in_words(), _reads(network, row), then, output, parameters))
    return told


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
