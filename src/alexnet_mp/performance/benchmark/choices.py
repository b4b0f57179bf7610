"""What the choices behind a step on a CPU bring: each timed beside what it was chosen over, in turns in one run.

One tower of the paper's network, on as many threads as asked for. `docs/performance.md` has the figures.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing
from torch import Tensor
from torch.nn import functional as F
from torch.optim.sgd import sgd

from alexnet_mp.common.cli import run_command
from alexnet_mp.common.host import keep_large_blocks
from alexnet_mp.common.schema import PositiveInt, from_mapping
from alexnet_mp.model.layers import lrn as local_response
from alexnet_mp.model.layers.norm import LocalResponseNorm
from alexnet_mp.model.tower import Tower
from alexnet_mp.network.table import load_network
from alexnet_mp.performance.benchmark.interleaved import cpu_of_the_report, median_and_spread, seconds_interleaved
from alexnet_mp.performance.benchmark.layers import FORMATS, LRN
from alexnet_mp.performance.benchmark.paper_recipe import paper_recipe
from alexnet_mp.training.optimizer import make_optimizer

Way = Callable[[], object]


@dataclass(frozen=True)
class ChoicesSettings:
    """The keys of `conf/choices.yaml`, which says what they mean."""

    batch_size: PositiveInt
    rounds: PositiveInt
    threads: PositiveInt
    deadline_seconds: float
    json: str | None


def run(configuration: Mapping[str, Any]) -> None:
    """Measure, print one line a way, and write the same numbers as JSON where `json` says."""
    settings = from_mapping(ChoicesSettings, configuration, "")
    keep_large_blocks()
    torch.set_num_threads(settings.threads)
    ways = {**_memory_formats(settings.batch_size), **_updates(), **_block_sizes(settings.batch_size)}
    seconds = seconds_interleaved(ways, settings.rounds)
    del ways
    for keep in (False, True):
        seconds[f"step of one tower, large blocks {'kept' if keep else 'given back'}"] = _steps(keep, settings)
    report = {
        "machine": cpu_of_the_report(),
        "batch_size": settings.batch_size,
        "rounds": settings.rounds,
        "seconds": {name: _summary(found) for name, found in seconds.items()},
    }
    print(as_text(report))
    if settings.json:
        Path(settings.json).write_text(json.dumps(report, indent=2) + "\n")


def _memory_formats(images: int) -> dict[str, Way]:
    """Convolutions and pooling, forward and backward, on the paper's shapes for one tower (paper §3.5)."""
    ways: dict[str, Way] = {}
    for name, memory_format in FORMATS.items():
        for layer, maps, side, kernels, size, stride, pad in (
            ("conv1", 3, 227, 48, 11, 4, 0),
            ("conv2", 48, 27, 128, 5, 1, 2),
            ("conv4", 192, 13, 192, 3, 1, 1),
        ):
            inputs = torch.randn(images, maps, side, side).to(memory_format=memory_format)
            weight = torch.randn(kernels, maps, size, size, requires_grad=True)
            inputs.requires_grad_(layer != "conv1")
            convolve = partial(F.conv2d, weight=weight, stride=stride, padding=pad)
            ways[f"{layer} {name}"] = _both_ways(convolve, inputs, weight)
        maps_in = torch.randn(images, 48, 55, 55).to(memory_format=memory_format).requires_grad_()
        ways[f"pool1 {name}"] = _both_ways(lambda x: F.max_pool2d(x, 3, 2), maps_in)
    return ways


def _both_ways(layer: Callable[[Tensor], Tensor], inputs: Tensor, *weights: Tensor) -> Way:
    wanted = [tensor for tensor in (inputs, *weights) if tensor.requires_grad]
    gradient = torch.ones_like(layer(inputs)).detach()
    return lambda: torch.autograd.grad(layer(inputs), wanted, gradient)


def _updates() -> dict[str, Way]:
    """The update of tower 0's 30.5 million parameters, in one pass over them or operation by operation."""
    parameters = [parameter.detach() for parameter in Tower(load_network("paper"), 0, seed=0).parameters()]
    gradients, velocities = ([torch.full_like(p, 1e-6) for p in parameters] for _ in range(2))
    update = partial(
        sgd,
        parameters,
        gradients,
        list(velocities),
        weight_decay=0.0005,
        momentum=0.9,
        lr=1e-6,
        dampening=0.0,
        nesterov=False,
        maximize=False,
    )
    return {
        "update fused": partial(update, fused=True, foreach=False),
        "update foreach": partial(update, fused=False, foreach=True),
    }


def _block_sizes(images: int) -> dict[str, Way]:
    """The LRN after conv1, forward and backward, by the bytes of a block."""
    maps = torch.randn(images, 48, 55, 55).relu().to(memory_format=torch.channels_last).requires_grad_()
    layer = LocalResponseNorm(LRN.n, LRN.k, LRN.alpha, LRN.beta, LRN.alpha_scales)
    call = _both_ways(layer, maps)

    def with_blocks(size: int) -> None:
        chosen = local_response.BLOCK_BYTES
        local_response.BLOCK_BYTES = size
        try:
            call()
        finally:
            local_response.BLOCK_BYTES = chosen

    sizes = {f"{kib} KiB": kib * 1024 for kib in (96, 192, 384, 768, 1536)} | {"all at once": 1 << 40}
    return {f"lrn1, blocks of {name}": partial(with_blocks, size) for name, size in sizes.items()}


def _steps(keep: bool, settings: ChoicesSettings) -> list[float]:
    """Seconds of whole steps of tower 0, in a new process: glibc cannot be told to change its mind."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    worker = context.Process(target=_train, args=(keep, settings, results), daemon=True)
    worker.start()
    try:
        seconds: list[float] = results.get(timeout=settings.deadline_seconds)
    finally:
        worker.terminate()
        worker.join()
    return seconds


def _train(keep: bool, settings: ChoicesSettings, results: Any) -> None:
    """Tower 0 by itself: its own halves stand for those that would come from its peer."""
    if keep:
        keep_large_blocks()
    torch.set_num_threads(settings.threads)
    network = load_network("paper")
    tower = Tower(network, 0, seed=0)
    optimizer = make_optimizer({"0": tower}, paper_recipe(settings.batch_size))
    images = torch.randn(settings.batch_size, *network.image)
    labels = torch.zeros(settings.batch_size, dtype=torch.long)
    seconds = []
    for step in range(settings.rounds + 3):
        started = time.perf_counter()
        activations = images
        for number, stage in enumerate(tower.stages):
            peer = activations.detach() if number else None
            activations = stage.rest(stage.own_half(activations), peer, {})
        F.cross_entropy(activations, labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step >= 3:  # at first, memory is new to the process either way
            seconds.append(time.perf_counter() - started)
    results.put(seconds)


def _summary(seconds: list[float]) -> dict[str, Any]:
    middle, spread = median_and_spread(seconds)
    return {"median": middle, "spread": spread, "rounds": seconds}


def as_text(report: Mapping[str, Any]) -> str:
    """The report for a terminal."""
    machine = report["machine"]
    software = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"{machine['device']}; threads: {machine['threads']}; {software}",
        f"batch {report['batch_size']}, rounds: {report['rounds']}; medians, and (max - min) / median",
    ]
    width = max(map(len, report["seconds"]))
    lines += [
        f"  {name:{width}}  {1e3 * found['median']:8.1f} ms  {found['spread']:5.0%}"
        for name, found in report["seconds"].items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Entry point of `benchmarks/choices.py`; see `conf/choices.yaml` for the keys."""
    run_command("choices", run)
