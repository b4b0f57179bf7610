"""Measures this machine and prints it as a hardware description for the cost model.

python benchmarks/device.py > mine.yaml
python launch/plan.py hardware=mine.yaml

On a CPU a device is one core with a process of its own, all measured at once, as the towers run; otherwise it is a GPU.
Products are those of a tower of the preset `paper`, in the better memory format; the other rows are this library's
layers. Every figure is the fastest of several turns, so that it says little of what else ran meanwhile, and is the
average over the devices. Large blocks of memory stay with glibc, as they should in training.
"""

import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from alexnet_mp.common.cli import run_command
from alexnet_mp.common.host import device_name, now, usable_cores, versions
from alexnet_mp.common.schema import PositiveInt, from_mapping
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.tower import Tower
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import load_network
from alexnet_mp.performance.benchmark.interleaved import forward_and_backward, results_of_processes, seconds_interleaved
from alexnet_mp.performance.benchmark.matrix_bound import MEMORY_FORMATS, MatrixProduct, matrix_layers
from alexnet_mp.training.optimizer import PaperSGD

_PAYLOAD = 11_000_000  # bytes: what conv3 of the paper's network exchanges for 128 images
_DEADLINE_SECONDS = 3600.0  # of the processes that measure
_BUCKET = 25 * 1024 * 1024  # bytes of an all-reduce: a bucket of DistributedDataParallel


@dataclass(frozen=True)
class DeviceSettings:
    """The keys of `conf/benchmark/device.yaml`, which says what they mean."""

    device: Literal["auto", "cpu", "cuda"]
    count: PositiveInt | None
    batch_size: PositiveInt
    repeats: PositiveInt


def run(configuration: Mapping[str, Any]) -> None:
    """Measure, and print the description to standard output."""
    settings = from_mapping(DeviceSettings, configuration, "")
    kind, batch = settings.device, settings.batch_size
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    there = torch.cuda.device_count() if kind == "cuda" else usable_cores()
    count = settings.count or min(2, there)
    if count < 1:
        raise ConfigurationError(f"device={kind}: there is no such device to measure")
    # For the processes started below: large blocks stay with glibc, as in training, so that no page is mapped anew.
    os.environ |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(32 * 2**30)}
    sizes = (batch, settings.repeats)
    with tempfile.TemporaryDirectory(prefix="alexnet-mp-") as folder:
        each = results_of_processes(_measure, count, _DEADLINE_SECONDS, count, kind, *sizes, f"file://{folder}/store")
    one = None
    if kind == "cpu" and count > 1:
        (one,) = results_of_processes(_measure_one_process, 1, _DEADLINE_SECONDS, count, *sizes)
    found = {name: statistics.mean(values[name] for values in each) for name in each[0]}
    print(_description(kind, count, batch, found, one))
    print(f"load average now {os.getloadavg()[0]:.1f}; on an idle machine it is about {count}", file=sys.stderr)


def _fastest_seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The fastest of `repeats`, after one to warm up; all processes begin each of them together."""
    before = dist.barrier if dist.is_initialized() else lambda: None
    return min(seconds_interleaved({0: work}, repeats, before=before, clock=lambda: now([device]), quiet=True)[0])


def _products(device: torch.device, batch: int, kind: str, repeats: int) -> tuple[float, float]:
    """Operations a second of the tower's convolutions or matrix products, and the highest of a single row."""
    operations, seconds, highest = 0.0, 0.0, 0.0
    for layer in matrix_layers(load_network("paper")):
        (product,) = layer.ways["joined" if "joined" in layer.ways else "whole"]
        if (kind == "conv") != (len(product.inputs) > 1):
            continue
        formats = MEMORY_FORMATS.values() if kind == "conv" else [torch.contiguous_format]
        best = min(
            _fastest_seconds(_product(product, layer.passes, device, batch, each), device, repeats) for each in formats
        )
        count = 2 * product.multiply_adds * batch * len(layer.passes)
        operations, seconds, highest = operations + count, seconds + best, max(highest, count / best)
    return operations / seconds, highest


def _product(
    product: MatrixProduct, passes: Sequence[str], device: torch.device, batch: int, memory_format: torch.memory_format
) -> Callable[[], object]:
    """Forward and backward of one row, without its bias; the image gets no gradient."""
    inputs = torch.randn(batch, *product.inputs, device=device).to(memory_format=memory_format)
    weight = torch.randn(product.weight, device=device).to(memory_format=memory_format).requires_grad_()
    inputs.requires_grad_("input gradient" in passes)
    convolve = partial(F.conv2d, stride=product.stride, padding=product.padding)
    return forward_and_backward(partial(convolve if inputs.ndim == 4 else F.linear, weight=weight), inputs, weight)


def _row_passes(device: torch.device, batch: int, bandwidth: float, repeats: int) -> dict[str, float]:
    """For the rows that go through maps, by kind: passes over the input, both directions, at the copy's bandwidth."""
    network = load_network("paper")
    tower = Tower(network, 0, seed=0).to(device)
    seconds: dict[str, float] = {}
    passes: dict[str, float] = {}
    for cost in network_cost(network).rows:
        if cost.kind not in ("relu", "lrn", "maxpool"):
            continue
        # In a tower ReLU works in place, which it cannot on what a gradient is asked for; so it is a pass dearer here.
        layer = nn.ReLU() if cost.kind == "relu" else getattr(tower, cost.name)
        maps = torch.randn(batch, *cost.input_shape, device=device)
        if maps.ndim == 4:
            maps = maps.contiguous(memory_format=torch.channels_last)  # as a tower has them
        maps.requires_grad_()
        seconds[cost.kind] = seconds.get(cost.kind, 0.0) + _fastest_seconds(
            forward_and_backward(layer, maps), device, repeats
        )
        passes[cost.kind] = passes.get(cost.kind, 0.0) + maps.numel() * 4 / bandwidth
    return {kind: seconds[kind] / passes[kind] for kind in seconds}


def _optimizer_passes(device: torch.device, bandwidth: float, repeats: int) -> float:
    """Passes over the parameters of an update, at the copy's bandwidth."""
    sizes = [2048 * 9216, 2048 * 4096, 1000 * 2048]
    parameters = [nn.Parameter(torch.randn(size, device=device)) for size in sizes]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer = PaperSGD([{"params": parameters, "lr": 1e-9, "weight_decay": 5e-4}], momentum=0.9)
    return _fastest_seconds(optimizer.step, device, repeats) * bandwidth / (4 * sum(sizes))


def _link_of(device: torch.device, repeats: int) -> dict[str, float]:
    """Latency, bandwidth, all-reduce and what a transfer takes of the device's own work, with the next process."""
    rank, world = dist.get_rank(), dist.get_world_size()
    after, before = (rank + 1) % world, (rank - 1) % world
    out, inn = (torch.zeros(_PAYLOAD // 4, device=device) for _ in range(2))

    def exchange(count: int) -> list[dist.Work]:
        # In one batch: on NCCL, pairs of single operations may wait for each other forever.
        pair = [dist.P2POp(dist.isend, out[:count], after), dist.P2POp(dist.irecv, inn[:count], before)]
        works: list[dist.Work] = dist.batch_isend_irecv(pair)
        return works

    def wait(works: list[dist.Work]) -> None:
        for work in works:
            work.wait()

    latency = _fastest_seconds(lambda: wait(exchange(1)), device, 50)
    seconds = _fastest_seconds(lambda: wait(exchange(out.numel())), device, 10 * repeats)
    bucket = torch.zeros(_BUCKET // 4, device=device)
    reduced = _fastest_seconds(lambda: dist.all_reduce(bucket), device, 5 * repeats)
    left, right = (torch.randn(1024, 1024, device=device) for _ in range(2))

    def compute() -> None:
        for _ in range(6):
            torch.mm(left, right)

    def both() -> None:
        works = [work for _ in range(4) for work in exchange(out.numel())]
        compute()
        wait(works)

    alone, together = (_fastest_seconds(work, device, 10 * repeats) for work in (compute, both))
    bandwidth = _PAYLOAD / max(seconds - latency, 1e-9)
    lost = (together - max(alone, 4 * seconds)) / min(alone, 4 * seconds)
    return {
        "bandwidth": bandwidth,
        "latency_seconds": latency,
        "all_reduce_bandwidth": 2 * (world - 1) / world * _BUCKET / reduced,
        "compute_lost": min(1.0, max(0.0, lost)),
    }


def _measure(rank: int, world: int, kind: str, batch: int, repeats: int, store: str) -> dict[str, float]:
    """The figures of one process on one device, while the others measure theirs; they meet at `store`."""
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    torch.set_num_threads(1)
    if kind == "cuda":
        torch.cuda.set_device(device)  # what NCCL, and a barrier, take for this process's GPU
    if world > 1:
        backend = "nccl" if kind == "cuda" else "gloo"
        limit = timedelta(seconds=120)
        dist.init_process_group(backend, store, world_size=world, rank=rank, timeout=limit)
    source, target = (torch.zeros(32_000_000, device=device) for _ in range(2))
    copying = _fastest_seconds(lambda: target.copy_(source), device, 5 * repeats)
    bandwidth = 2 * 4 * source.numel() / copying
    one = torch.zeros(1, device=device)
    launches = _fastest_seconds(lambda: [one.add_(1) for _ in range(1000)], device, 3)
    found = {"bandwidth": bandwidth, "launch": launches / 1000}
    for name, row_kind in (("conv", "conv"), ("matmul", "fc")):
        found[name], found[f"highest_{name}"] = _products(device, batch, row_kind, repeats)
    found |= {f"passes.{name}": value for name, value in _row_passes(device, batch, bandwidth, repeats).items()}
    found["passes.optimizer"] = _optimizer_passes(device, bandwidth, repeats)
    if world > 1:
        found |= {f"link.{name}": value for name, value in _link_of(device, repeats).items()}
        dist.barrier()
        dist.destroy_process_group()
    return found


def _measure_one_process(rank: int, world: int, batch: int, repeats: int) -> dict[str, float]:
    """Convolutions and copies of one process with as many threads as there are cores, the others idle."""
    torch.set_num_threads(world)
    device = torch.device("cpu")
    conv, _ = _products(device, batch, "conv", repeats)
    source, target = (torch.zeros(32_000_000) for _ in range(2))
    copying = _fastest_seconds(lambda: target.copy_(source), device, 5 * repeats)
    return {"conv": conv, "bandwidth": 2 * 4 * source.numel() / copying}


def _description(kind: str, count: int, batch: int, found: dict[str, float], one: dict[str, float] | None) -> str:
    """The YAML that `launch/plan.py hardware=` reads."""
    device = torch.device(kind)
    software = ", ".join(f"{name} {version}" for name, version in versions().items())
    peak = max(found["highest_conv"], found["highest_matmul"])
    memory = (
        torch.cuda.get_device_properties(0).total_memory
        if kind == "cuda"
        else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // count
    )
    own = [f"  {name.removeprefix('passes.')}: {found[name]:.1f}" for name in found if name.startswith("passes.")]
    lines = [
        f"# {count} x {device_name(device)}, measured by benchmarks/device.py with batch {batch} on {date.today()}.",
        f"#   python benchmarks/device.py device={kind} count={count} batch_size={batch}",
        f"# {software}",
        f"name: {count}_{kind}_devices",
        f"devices: {count}",
        f"peak_flops: {{float32: {peak:.4g}}}     # the fastest single product of a tower's step, forward and backward",
        f"achieved: {{convolution: {found['conv'] / peak:.3f}, matmul: {found['matmul'] / peak:.3f}, memory: 1.0}}"
        f"     # all of them; {found['conv'] / 1e9:.1f} and {found['matmul'] / 1e9:.1f} GFLOP/s",
        f"memory_bandwidth: {found['bandwidth']:.4g}     # bytes/s read and written by a copy, all devices at once",
        f"memory_bytes: {memory}",
        f"launch_seconds: {found['launch']:.2g}",
        f"asynchronous: {str(kind == 'cuda').lower()}",
        "passes:     # of this library's layers, forward and backward; times the copy's bandwidth",
        *own,
        "link:",
        f"  name: {'NCCL' if kind == 'cuda' else 'gloo on the loopback device'}",
        f"  bandwidth: {found.get('link.bandwidth', 1e9):.4g}",
        f"  latency_seconds: {found.get('link.latency_seconds', 1e-4):.2g}",
        f"  all_reduce_bandwidth: {found.get('link.all_reduce_bandwidth', 1e9):.4g}",
        f"  compute_lost: {found.get('link.compute_lost', 0.0):.2f}",
    ]
    if one is not None:
        scaling = min(1.0, one["conv"] / (count * found["conv"]))
        lines.append(
            f"one_process: {scaling:.3f}     # convolutions of one process on all cores; copies reach "
            f"{one['bandwidth'] / (count * found['bandwidth']):.3f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Entry point of `benchmarks/device.py`; see `conf/benchmark/device.yaml` for the keys."""
    run_command("benchmark/device", run)


if __name__ == "__main__":
    main()
