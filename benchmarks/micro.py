"""How fast are layers, update and crossing by themselves, beside what each was chosen over? In turns in one run.

python benchmarks/micro.py
python benchmarks/micro.py parts=[normalization,crossing] compiled=true rounds=9 json=micro.json

On the CPU: layers and the update in this process, the crossing between two that send to each other at once, and whole
steps of one tower in one of its own. `docs/performance.md` has the figures.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch.nn import functional as F
from torch.optim.sgd import sgd

from alexnet_mp.common.cli import run_command
from alexnet_mp.common.host import keep_large_blocks
from alexnet_mp.common.schema import OutputFile, PositiveFloat, PositiveInt, from_mapping
from alexnet_mp.common.text import aligned
from alexnet_mp.model.layers import lrn as local_response
from alexnet_mp.model.layers.kinds import LayerPlace, layer_of
from alexnet_mp.model.single_device import STOCK_PARTS
from alexnet_mp.model.tower import Tower
from alexnet_mp.network import rows
from alexnet_mp.network.table import load_network
from alexnet_mp.parallel.links import ProcessLink
from alexnet_mp.performance.benchmark.interleaved import forward_and_backward, results_of_processes, seconds_interleaved
from alexnet_mp.performance.benchmark.matrix_bound import MEMORY_FORMATS
from alexnet_mp.performance.benchmark.output import machine_text, machine_values, over_rounds, publish
from alexnet_mp.performance.benchmark.paper_recipe import paper_recipe
from alexnet_mp.performance.benchmark.variants.ours import compile_lrn
from alexnet_mp.training.optimizer import make_optimizer

_LRN = rows.LocalResponseNorm(5, 2.0, 1e-4, 0.75, "sum")  # paper §3.3
_SPATIAL = rows.SpatialNorm(5, 1.0, 0.001, 0.75)  # layers-145.cfg
_PLACE = LayerPlace(_LRN.cost(rows.Place("lrn1", (48, 55, 55), towers=1, classes=1)), tower=0, may_overwrite=False)
_STEPS_TO_WARM_UP = 3  # of a tower: at first, memory is new to the process either way


@dataclass(frozen=True)
class MicroSettings:
    """The keys of `conf/benchmark/micro.yaml`, which says what they mean."""

    parts: tuple[Literal["normalization", "memory_formats", "update", "lrn_blocks", "large_blocks", "crossing"], ...]
    batch_size: PositiveInt
    maps: tuple[tuple[PositiveInt, PositiveInt, PositiveInt], ...]
    messages: tuple[PositiveInt, ...]
    rounds: PositiveInt
    threads: PositiveInt
    compiled: bool
    deadline_seconds: PositiveFloat
    json: OutputFile | None


class MicroFigure(NamedTuple):
    """What is timed; `shape` is of its inputs without the batch, or the bytes of a message."""

    part: str
    what: str
    shape: str = ""
    memory_format: str = ""


_Calls = dict[MicroFigure, Callable[[], object]]
_Seconds = dict[MicroFigure, list[float]]


def run(configuration: Mapping[str, Any]) -> None:
    """Measure, print one line a figure, and write the same numbers as JSON where `json` says."""
    settings = from_mapping(MicroSettings, configuration, "")
    load = os.getloadavg()[0]
    keep_large_blocks()  # for stock PyTorch's layers too
    torch.set_num_threads(settings.threads)
    calls: _Calls = {}
    for part, make in _IN_THIS_PROCESS.items():
        calls |= make(settings) if part in settings.parts else {}
    seconds = seconds_interleaved(calls, settings.rounds)
    del calls
    for part, measure in _IN_OTHERS.items():
        seconds |= measure(settings) if part in settings.parts else {}
    report = {
        "machine": machine_values(load),
        "batch_size": settings.batch_size,
        "rounds": settings.rounds,
        "figures": [{**figure._asdict(), **over_rounds(found)} for figure, found in seconds.items()],
    }
    publish(report, _text(report), settings.json)


def _normalizations(settings: MicroSettings) -> _Calls:
    """The normalizations of a tower, ours and stock PyTorch's, in both memory formats."""
    layers = {
        f"{name}_{whose}": make(row, _PLACE)
        for name, row in (("lrn", _LRN), ("spatial_norm", _SPATIAL))
        for whose, make in (("ours", layer_of), ("stock", STOCK_PARTS[type(row)]))
    }
    if settings.compiled:
        layers["lrn_ours_compiled"] = layer_of(_LRN, _PLACE)
        compile_lrn(layers["lrn_ours_compiled"], True)
    return {
        MicroFigure("normalization", name, _shape(maps), memory_format): forward_and_backward(
            layer, torch.randn(settings.batch_size, *maps).relu().to(memory_format=laid_out).requires_grad_()
        )
        for maps in settings.maps
        for memory_format, laid_out in MEMORY_FORMATS.items()
        for name, layer in layers.items()
    }


def _memory_formats(settings: MicroSettings) -> _Calls:
    """Convolutions and pooling on the paper's shapes for one tower (paper §3.5)."""
    calls: _Calls = {}
    for memory_format, laid_out in MEMORY_FORMATS.items():
        for layer, shape, (kernels, size, stride, pad) in (
            ("conv1", (3, 227, 227), (48, 11, 4, 0)),
            ("conv2", (48, 27, 27), (128, 5, 1, 2)),
            ("conv4", (192, 13, 13), (192, 3, 1, 1)),
        ):
            inputs = torch.randn(settings.batch_size, *shape).to(memory_format=laid_out)
            inputs.requires_grad_(layer != "conv1")
            weight = torch.randn(kernels, shape[0], size, size, requires_grad=True)
            convolve = partial(F.conv2d, weight=weight, stride=stride, padding=pad)
            calls[MicroFigure("memory_formats", layer, _shape(shape), memory_format)] = forward_and_backward(
                convolve, inputs, weight
            )
        maps = torch.randn(settings.batch_size, 48, 55, 55).to(memory_format=laid_out).requires_grad_()
        pool = forward_and_backward(lambda x: F.max_pool2d(x, 3, 2), maps)
        calls[MicroFigure("memory_formats", "pool1", "48x55x55", memory_format)] = pool
    return calls


def _updates(settings: MicroSettings) -> _Calls:
    """The update of tower 0's 30.5 million parameters, in one pass over them or operation by operation."""
    parameters = [parameter.detach() for parameter in Tower(load_network("paper"), 0, seed=0).parameters()]
    gradients, velocities = ([torch.full_like(p, 1e-6) for p in parameters] for _ in range(2))
    update = partial(sgd, parameters, gradients, list(velocities), weight_decay=0.0005, momentum=0.9, lr=1e-6)
    update = partial(update, dampening=0.0, nesterov=False, maximize=False)
    return {
        MicroFigure("update", "fused"): partial(update, fused=True, foreach=False),
        MicroFigure("update", "foreach"): partial(update, fused=False, foreach=True),
    }


def _block_sizes(settings: MicroSettings) -> _Calls:
    """The LRN after conv1, forward and backward, by the bytes of a block."""
    maps = torch.randn(settings.batch_size, 48, 55, 55).relu().to(memory_format=torch.channels_last).requires_grad_()
    call = forward_and_backward(layer_of(_LRN, _PLACE), maps)

    def with_blocks(size: int) -> None:
        chosen = local_response.BLOCK_BYTES
        local_response.BLOCK_BYTES = size
        try:
            call()
        finally:
            local_response.BLOCK_BYTES = chosen

    sizes = {f"{kib} KiB": kib * 1024 for kib in (96, 192, 384, 768, 1536)} | {"all at once": 1 << 40}
    return {
        MicroFigure("lrn_blocks", f"lrn1, blocks of {name}"): partial(with_blocks, size) for name, size in sizes.items()
    }


def _crossing(settings: MicroSettings) -> _Seconds:
    """An exchange over gloo, both ways at once, by the bytes that each side sends: the slower side's seconds."""
    with tempfile.TemporaryDirectory(prefix="alexnet-mp-") as folder:
        sides = results_of_processes(_exchange, 2, settings.deadline_seconds, f"file://{folder}/rendezvous", settings)
    return {
        MicroFigure("crossing", "exchange", f"{size} bytes"): [max(pair) for pair in zip(*of_size, strict=True)]
        for size, of_size in zip(settings.messages, zip(*sides, strict=True), strict=True)
    }


def _exchange(rank: int, rendezvous: str, settings: MicroSettings) -> list[list[float]]:
    """One side: for each message its seconds in every round, from before it is posted until the peer's is here."""
    torch.set_num_threads(1)
    timeout = timedelta(seconds=settings.deadline_seconds)
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2, timeout=timeout)
    group = dist.group.WORLD
    assert group is not None
    link = ProcessLink(group)
    calls = {
        number: partial(
            lambda message: link.post([[message]], "benchmark", "forward")(), torch.zeros(max(size // 4, 1))
        )
        for number, size in enumerate(settings.messages)
    }
    seconds = seconds_interleaved(calls, settings.rounds, before=dist.barrier, quiet=True)
    dist.barrier()
    dist.destroy_process_group()
    return list(seconds.values())


def _large_blocks(settings: MicroSettings) -> _Seconds:
    """Whole steps of tower 0, each way in a new process: glibc cannot be told to change its mind."""
    return {
        MicroFigure("large_blocks", f"step of one tower, large blocks {'kept' if keep else 'given back'}"): seconds
        for keep in (False, True)
        for seconds in results_of_processes(_train, 1, settings.deadline_seconds, keep, settings)
    }


def _train(rank: int, keep: bool, settings: MicroSettings) -> list[float]:
    """Tower 0 by itself: its own halves stand for those that would come from its peer."""
    if keep:
        keep_large_blocks()
    torch.set_num_threads(settings.threads)
    network = load_network("paper")
    tower = Tower(network, 0, seed=0)
    optimizer = make_optimizer({"0": tower}, paper_recipe(settings.batch_size))
    images = torch.randn(settings.batch_size, *network.image)
    labels = torch.zeros(settings.batch_size, dtype=torch.long)

    def step() -> None:
        activations = images
        for number, stage in enumerate(tower.stages):
            peer = activations.detach() if number else None
            activations = stage.rest(stage.own_half(activations), peer, {})
        F.cross_entropy(activations, labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return seconds_interleaved({0: step}, settings.rounds, _STEPS_TO_WARM_UP, quiet=True)[0]


_IN_THIS_PROCESS: dict[str, Callable[[MicroSettings], _Calls]] = {
    "normalization": _normalizations,
    "memory_formats": _memory_formats,
    "update": _updates,
    "lrn_blocks": _block_sizes,
}
_IN_OTHERS: dict[str, Callable[[MicroSettings], _Seconds]] = {"large_blocks": _large_blocks, "crossing": _crossing}


def _shape(maps: tuple[int, ...]) -> str:
    return "x".join(map(str, maps))


def _text(report: Mapping[str, Any]) -> str:
    """A line for each figure, with how it stands to the stock layer, or the bandwidth of a message."""
    figures = report["figures"]
    stock = {
        (each["what"].removesuffix("_stock"), each["shape"], each["memory_format"]): each["median"]
        for each in figures
        if each["what"].endswith("_stock")
    }
    table = [["part", "", "inputs", "memory format", "ms", "spread", ""]]
    for each in figures:
        base = stock.get((each["what"].split("_ours")[0].removesuffix("_stock"), each["shape"], each["memory_format"]))
        note = f"{base / each['median']:.1f} times stock" if base else ""
        if each["part"] == "crossing":
            note = f"{int(each['shape'].split()[0]) / each['median'] / 1e9:.2f} GB/s each way"
        words = [each[key].replace("_", " ") for key in ("part", "what", "shape", "memory_format")]
        table.append([*words, f"{1e3 * each['median']:,.2f}", f"{each['spread']:.0%}", note])
    about = f"batch {report['batch_size']}, rounds: {report['rounds']}; medians, and (max - min) / median; "
    return "\n".join([machine_text(report["machine"]), about + "layers forward and backward", "", *aligned(table, 4)])


def main() -> None:
    """Entry point of `benchmarks/micro.py`; see `conf/benchmark/micro.yaml` for the keys."""
    run_command("benchmark/micro", run)


if __name__ == "__main__":
    main()
