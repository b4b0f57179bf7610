"""The page of the accounting: a table of the networks, then each one's layers; CSV files and charts beside it."""

import csv
import re
import shlex
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path

from alexnet_mp.analysis.results.layer_costs_chart import draw_comparison, draw_layer_costs
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.costs import LayerCost, LayerCosts, layer_costs
from alexnet_mp.network.table import Network

COLUMNS = ("layer", "kind", "output of a tower", "memory, KiB", "parameters", "operations each", "operations")

_NAME = re.compile(r"[A-Za-z0-9_][\w.+-]*", re.ASCII)

INTRODUCTION = """\
What networks cost, layer by layer, for one image forward, counted as in Johnson's lecture 8 (EECS 498-007, "CNN
architectures"):

- memory: 4 x channels x height x width bytes of each layer's output, in float32; of branches, all that are inside;
- parameters: weights and biases;
- operations: output elements x operations for each. A multiplication with its addition counts as one operation. An
  element of a convolution or fully-connected layer takes as many as it has inputs, of pooling as many as its window has
  pixels, of the response normalization over n maps n + 2, over a window its pixels + 2.

ReLU, tanh, dropout and the joining of branches have no line: they work in place, and the lecture counts nothing for
them. The lecture's AlexNet is `one_weird_trick`, there with images of 227x227. Of a network of several towers, shapes
are of one tower and everything else is of all. Every number follows from the network's table."""


def write_page(networks: Sequence[Network], out: Path, charts: bool) -> list[Path]:
    """Write `out`/accounting.md and `out`/accounting/*.{csv,png}; return their paths.

    Raises ConfigurationError where it cannot write, and for a network whose name cannot be that of a file.
    """
    for network in networks:
        if not _NAME.fullmatch(network.name):
            raise ConfigurationError(
                f"network {network.name!r} would name files; take letters, digits and . _ + - only, the first no sign"
            )
    counted = [layer_costs(network) for network in networks]
    folder = out / "accounting"
    written = [out / "accounting.md"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for each in counted:
            written.append(folder / f"{each.network}.csv")
            written[-1].write_text(as_csv(each))
            if charts:
                written.append(folder / f"{each.network}.png")
                draw_layer_costs(each, written[-1])
        if charts:
            written.append(folder / "comparison.png")
            draw_comparison(counted, written[-1])
        written[0].write_text(as_markdown(counted, charts))
    except OSError as error:
        raise ConfigurationError(f"cannot write the accounting to {out}: {error}") from error
    return written


def as_markdown(counted: Sequence[LayerCosts], charts: bool) -> str:
    """The whole page."""
    names = ",".join(each.network for each in counted)
    command = f"python launch/account.py networks={shlex.quote(f'[{names}]')}"
    parts = ["# Memory, parameters and operations of every layer", f"Made by\n\n```\n{command}\n```", INTRODUCTION]
    parts.append("\n".join(_comparison(counted)))
    if charts:
        parts.append("![Memory, parameters and operations of the networks, side by side](accounting/comparison.png)")
    for each in counted:
        parts.append(f"## {each.network}")
        towers = "one tower" if each.towers == 1 else f"{each.towers} towers"
        size = "x".join(map(str, each.image))
        parts.append(f"Images {size}, {towers}. Every layer by itself: [CSV](accounting/{each.network}.csv).")
        if charts:
            parts.append(f"![Bars of {each.network}'s layers](accounting/{each.network}.png)")
        parts.append("\n".join(_layers(each)))
    return "\n\n".join(parts) + "\n"


def as_csv(of: LayerCosts) -> str:
    """Every layer by itself, those in branches too, without the auxiliary classifiers; memory in bytes."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["layer", "kind", "output", "memory_bytes", "parameters", "operations_each", "operations"])
    for line in of.layers:
        shape = "x".join(map(str, line.output_shape))
        writer.writerow(
            [line.name, line.kind, shape, line.memory, line.parameters, line.operations_each, line.operations]
        )
    return text.getvalue()


def _comparison(counted: Sequence[LayerCosts]) -> Iterator[str]:
    yield "| network | towers | output memory, MB | parameters | operations | of them multiply-adds of products |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for each in counted:
        numbers = f"{each.parameters:,} | {each.operations:,} | {each.multiply_adds:,}"
        yield f"| `{each.network}` | {each.towers} | {each.memory / 1e6:.2f} | {numbers} |"


def _layers(of: LayerCosts) -> Iterator[str]:
    yield f"| {' | '.join(COLUMNS)} |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: |"
    for line in of.lines:
        yield _cells(line, line.name, "x".join(map(str, line.output_shape)))
    total = LayerCost("", "", (), of.memory, of.parameters, None, of.operations, of.multiply_adds)
    yield _cells(total, "**total**", "")
    for line in of.training_only:
        yield _cells(line, f"{line.name}, in training alone, not in the total", "")


def _cells(line: LayerCost, name: str, shape: str) -> str:
    numbers = [f"{line.memory / 1024:,.1f}", *(f"{n:,}" if n else "" for n in (line.parameters, line.operations_each))]
    return f"| {' | '.join([name, line.kind, shape, *numbers, f'{line.operations:,}'])} |"
