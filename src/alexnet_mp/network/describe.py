"""The table of layers that `launch/describe.py` prints and writes as JSON."""

from typing import Any

from alexnet_mp.common.text import aligned, count
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


def layer_table(description: dict[str, Any]) -> str:
    """`describe`'s values as a table for a terminal: a line a layer, then one tower at a time, then the total."""
    towers = description["towers"]
    rows = [["layer", "kind", "reads", "output of a tower", "parameters", "multiply-adds", "activation bytes"]]
    rows[0] += ["crossing bytes forward", "backward"]
    for layer in description["layers"]:
        kind = layer["kind"] + (", training only" if layer["training_only"] else "")
        rows.append(
            [layer["name"], kind, layer["reads"], " x ".join(map(str, layer["output_shape"])), *_numbers(layer)]
        )
    for tower, parameters in enumerate(description["parameters_per_tower"]):
        shares = {key: description[key] // towers for key in ("multiply_adds", "activation_bytes")}
        rows.append([f"tower {tower}", "", "", "", *_numbers({**description, **shares, "parameters": parameters})])
    rows.append(["total", "", "", "", *_numbers(description, senders=towers * (towers - 1))])
    title = f"{description['network']}: {count(towers, 'tower')}, image {description['image']}, "
    title += f"{description['classes']} classes; for one image, in float32"
    return "\n".join([title, "", *aligned(rows, text_columns=4, totals=towers + 1)])


def _numbers(costs: dict[str, Any], senders: int = 1) -> list[str]:
    crossing = [4 * senders * costs[f"crossing_floats_{direction}"] for direction in ("forward", "backward")]
    numbers = [costs["parameters"], costs["multiply_adds"], costs["activation_bytes"], *crossing]
    return [f"{number:,}" if number else "" for number in numbers]
