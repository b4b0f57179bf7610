"""How fast are the layers by themselves, and the crossing? Ours and stock PyTorch's, in turns in one run.

The normalizations are timed forward and backward on one core's thread, in both memory formats. The crossing is timed
between two processes that send to each other at once, by the size of the message.
"""

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn

from alexnet_mp.common.cli import run_command
from alexnet_mp.common.host import keep_large_blocks
from alexnet_mp.common.schema import PositiveInt, from_mapping
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.layers.norm import LocalResponseNorm, SpatialNorm
from alexnet_mp.model.single_device import STOCK_PARTS
from alexnet_mp.network import rows
from alexnet_mp.parallel.links import ProcessLink
from alexnet_mp.performance.benchmark.interleaved import cpu_of_the_report, median_and_spread, seconds_interleaved

FORMATS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}
LRN = rows.LocalResponseNorm(5, 2.0, 1e-4, 0.75, "sum")  # paper §3.3
SPATIAL = rows.SpatialNorm(5, 1.0, 0.001, 0.75)  # layers-145.cfg


@dataclass(frozen=True)
class LayersSettings:
    """The keys of `conf/layers.yaml`, which says what they mean."""

    batch_size: PositiveInt
    maps: tuple[tuple[int, int, int], ...]
    messages: tuple[int, ...]
    rounds: PositiveInt
    threads: PositiveInt
    compiled: bool
    deadline_seconds: float
    json: str | None


def run(configuration: Mapping[str, Any]) -> None:
    """Measure, print one line a figure, and write the same numbers as JSON where `json` says."""
    settings = from_mapping(LayersSettings, configuration, "")
    if settings.json and not Path(settings.json).absolute().parent.is_dir():
        raise ConfigurationError(f"json={settings.json}: there is no folder {Path(settings.json).absolute().parent}")
    keep_large_blocks()  # for stock PyTorch's layers too
    torch.set_num_threads(settings.threads)
    report = {
        "machine": cpu_of_the_report(),
        "batch_size": settings.batch_size,
        "rounds": settings.rounds,
        "normalization": measure_normalization(settings),
        "crossing": measure_crossing(settings),
    }
    print(as_text(report))
    if settings.json:
        Path(settings.json).write_text(json.dumps(report, indent=2) + "\n")


def measure_normalization(settings: LayersSettings) -> list[dict[str, Any]]:
    """Seconds forward and backward of every layer, shape and memory format: median and spread over the rounds."""
    turns: dict[tuple[str, tuple[int, int, int], str], Callable[[], object]] = {}
    for maps in settings.maps:
        for memory_format in FORMATS:
            for name, layer in _normalizations(settings.compiled).items():
                inputs = torch.randn(settings.batch_size, *maps).relu().to(memory_format=FORMATS[memory_format])
                turns[name, maps, memory_format] = _forward_and_backward(layer, inputs)
    seconds = seconds_interleaved(turns, settings.rounds)
    return [
        {"layer": name, "maps": list(maps), "memory_format": memory_format, **_summary(found)}
        for (name, maps, memory_format), found in seconds.items()
    ]


def _normalizations(compiled: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    ours = LocalResponseNorm(LRN.n, LRN.k, LRN.alpha, LRN.beta, LRN.alpha_scales)
    spatial = SpatialNorm(SPATIAL.size, SPATIAL.k, SPATIAL.alpha, SPATIAL.beta)
    layers: dict[str, nn.Module] = {"lrn_ours": ours}
    layers |= {"lrn_stock": STOCK_PARTS.lrn(LRN, 1)}
    layers |= {"spatial_norm_ours": spatial, "spatial_norm_stock": STOCK_PARTS.spatial_norm(SPATIAL)}
    calls: dict[str, Callable[[Tensor], Tensor]] = dict(layers)
    if compiled:
        compiled_lrn = LocalResponseNorm(LRN.n, LRN.k, LRN.alpha, LRN.beta, LRN.alpha_scales)
        compiled_lrn.compiled = True
        calls["lrn_ours_compiled"] = compiled_lrn
    return calls


def _forward_and_backward(layer: Callable[[Tensor], Tensor], inputs: Tensor) -> Callable[[], object]:
    gradient = torch.randn_like(inputs)
    leaf = inputs.requires_grad_()
    return lambda: torch.autograd.grad(layer(leaf), leaf, gradient)


def measure_crossing(settings: LayersSettings) -> list[dict[str, Any]]:
    """Seconds of an exchange over gloo, both ways at once, by the bytes that each side sends: the slower side's."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory(prefix="alexnet-mp-") as folder:
        meeting = f"file://{folder}/meeting"
        workers = [
            context.Process(target=_exchange, args=(rank, meeting, settings, results), daemon=True) for rank in range(2)
        ]
        for worker in workers:
            worker.start()
        try:
            sides = [results.get(timeout=settings.deadline_seconds) for _ in workers]
        finally:
            for worker in workers:
                worker.terminate()
                worker.join()
    slower = [[max(pair) for pair in zip(*of_size, strict=True)] for of_size in zip(*sides, strict=True)]
    found = [
        {"bytes_each_way": size, **_summary(seconds)} for size, seconds in zip(settings.messages, slower, strict=True)
    ]
    return [{**each, "bytes_per_second_each_way": each["bytes_each_way"] / each["seconds"]} for each in found]


def _exchange(rank: int, meeting: str, settings: LayersSettings, results: Any) -> None:
    """One side: for each message its seconds in every round, from before it is posted until the peer's is here."""
    torch.set_num_threads(1)
    timeout = timedelta(seconds=settings.deadline_seconds)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timeout)
    group = dist.group.WORLD
    assert group is not None
    link = ProcessLink(group)
    messages = [torch.zeros(max(size // 4, 1)) for size in settings.messages]
    seconds: list[list[float]] = [[] for _ in messages]
    for number in range(settings.rounds + 1):  # the first connects
        for message, found in zip(messages, seconds, strict=True):
            dist.barrier()
            started = time.perf_counter()
            link.post([[message]], "benchmark", "forward")()
            if number:
                found.append(time.perf_counter() - started)
    results.put(seconds)
    dist.barrier()
    dist.destroy_process_group()


def _summary(seconds: list[float]) -> dict[str, Any]:
    middle, spread = median_and_spread(seconds)
    return {"seconds": middle, "spread": spread, "seconds_of_rounds": seconds}


def as_text(report: Mapping[str, Any]) -> str:
    """The report for a terminal."""
    machine = report["machine"]
    software = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"{machine['device']}; threads: {machine['threads']}; {software}",
        f"batch {report['batch_size']}, rounds: {report['rounds']}; medians, and (max - min) / median",
        "",
        "forward + backward",
    ]
    stock = {
        (each["layer"].removesuffix("_stock"), *each["maps"], each["memory_format"]): each["seconds"]
        for each in report["normalization"]
        if each["layer"].endswith("_stock")
    }
    for each in report["normalization"]:
        shape = "x".join(map(str, each["maps"]))
        base = stock[each["layer"].split("_ours")[0].removesuffix("_stock"), *each["maps"], each["memory_format"]]
        lines.append(
            f"  {each['layer']:27} {shape:>11}  {each['memory_format']:13} {1e3 * each['seconds']:8.1f} ms  "
            f"{each['spread']:5.0%}   {base / each['seconds']:5.1f} times stock"
        )
    lines += ["", "exchange between two processes, both ways at once"]
    for each in report["crossing"]:
        lines.append(
            f"  {each['bytes_each_way']:>12,} bytes each way  {1e3 * each['seconds']:8.2f} ms  {each['spread']:5.0%}   "
            f"{each['bytes_per_second_each_way'] / 1e9:6.2f} GB/s each way"
        )
    return "\n".join(lines)


def main() -> None:
    """Entry point of `benchmarks/layers.py`; see `conf/layers.yaml` for the keys."""
    run_command("layers", run)
