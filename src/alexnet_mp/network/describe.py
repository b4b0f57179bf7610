"""The table of layers that `launch/describe.py` prints and writes as JSON."""

from typing import Any

from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import Network


def describe(network: Network) -> dict[str, Any]:
    """What the network costs, in all and layer by layer, as plain values.

    `output_shape` is one tower's. Parameters, multiply-adds and activation bytes are over all towers, for one image;
    crossing floats are what each tower sends to each of its peers, for one image. Totals count the layers of auxiliary
    classifiers too, which are `training_only`.
    """
    costs = network_cost(network)
    layers = [
        {
            "name": row.name,
            "kind": row.kind,
            "reads": row.reads,
            "training_only": row.training_only,
            "output_shape": list(row.output_shape),
            "parameters": sum(row.parameters(tower) for tower in range(network.towers)),
            "parameters_per_tower": [row.parameters(tower) for tower in range(network.towers)],
            "multiply_adds": network.towers * row.multiply_adds,
            "activation_bytes": network.towers * row.activation_bytes,
            "crossing_floats_forward": row.crossing_floats_forward,
            "crossing_floats_backward": row.crossing_floats_backward,
        }
        for row in costs.rows
    ]
    return {
        "network": network.name,
        "towers": network.towers,
        "image": list(network.image),
        "classes": network.classes,
        "parameters": costs.parameters,
        "parameters_per_tower": costs.parameters_per_tower,
        "multiply_adds": costs.multiply_adds,
        "activation_bytes": network.towers * sum(row.activation_bytes for row in costs.rows),
        "crossing_floats_forward": costs.crossing_floats_forward,
        "crossing_floats_backward": costs.crossing_floats_backward,
        "layers": layers,
    }


def as_text(description: dict[str, Any]) -> str:
    """`describe`'s values as a table for a terminal: a line a layer, then one tower at a time, then the total."""
    towers = description["towers"]
    header = ["layer", "kind", "reads", "output of a tower", "parameters", "multiply-adds", "activation bytes"]
    header += ["crossing bytes forward", "backward"]
    lines = [
        [layer["name"], _kind(layer), layer["reads"], " x ".join(map(str, layer["output_shape"])), *_numbers(layer)]
        for layer in description["layers"]
    ]
    for tower, parameters in enumerate(description["parameters_per_tower"]):
        share = {**description, "parameters": parameters}
        share |= {key: description[key] // towers for key in ("multiply_adds", "activation_bytes")}
        lines.append([f"tower {tower}", "", "", "", *_numbers(share)])
    lines.append(["total", "", "", "", *_numbers({**description, **_sent_by_all(description)})])
    widths = [max(len(line[column]) for line in [header, *lines]) for column in range(len(header))]
    rule = "  ".join("-" * width for width in widths)
    text = [_aligned(line, widths) for line in [header, *lines]]
    body = [text[0], rule, *text[1 : -towers - 1], rule, *text[-towers - 1 :]]
    title = f"{description['network']}: {towers} tower{'s' if towers > 1 else ''}, image {description['image']}, " + (
        f"{description['classes']} classes; for one image, in float32"
    )
    return "\n".join([title, "", *body])


def _kind(layer: dict[str, Any]) -> str:
    kind: str = layer["kind"]
    return f"{kind}, training only" if layer["training_only"] else kind


def _numbers(costs: dict[str, Any]) -> list[str]:
    crossing = [4 * costs["crossing_floats_forward"], 4 * costs["crossing_floats_backward"]]
    numbers = [costs["parameters"], costs["multiply_adds"], costs["activation_bytes"], *crossing]
    return [f"{number:,}" if number else "" for number in numbers]


def _sent_by_all(description: dict[str, Any]) -> dict[str, int]:
    senders = description["towers"] * (description["towers"] - 1)
    keys = ("crossing_floats_forward", "crossing_floats_backward")
    return {key: senders * description[key] for key in keys}


def _aligned(line: list[str], widths: list[int]) -> str:
    cells = [
        cell.ljust(width) if i < 4 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
