"""Measure this machine and print it as a device description for the cost model, in half a minute.

python benchmarks/device.py > mine.yaml
python launch/plan.py hardware=mine.yaml

On a CPU a device is one core with a process of its own, all measured at once, as the towers run; with --device cuda it
is a GPU. Products are those of a tower of the preset `paper`, in the better memory format; the other rows are this
library's layers. Every figure is the fastest of several turns, so that it says little of what else ran meanwhile, and
is the average over the devices. Large blocks of memory stay with glibc, as they should in training.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet_mp.common.host import device_name, usable_cores, versions
from alexnet_mp.model.tower import Tower
from alexnet_mp.network import rows
from alexnet_mp.network.costs import RowCost, network_cost
from alexnet_mp.network.table import load_network
from alexnet_mp.training.optimizer import PaperSGD

PAYLOAD = 11_000_000  # bytes: what conv3 of the paper's network exchanges for 128 images
BUCKET = 25 * 1024 * 1024  # bytes of an all-reduce: a bucket of DistributedDataParallel


def fastest_seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The fastest of `repeats`, after one to warm up; all processes begin each of them together."""
    times = []
    for _ in range(repeats + 1):
        if dist.is_initialized():
            dist.barrier()
        start = now(device)
        work()
        times.append(now(device) - start)
    return min(times[1:])


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def products(device: torch.device, batch: int, kind: str, repeats: int) -> tuple[float, float]:
    """Operations a second of the tower's convolutions or matrix products, and the highest of a single row."""
    network = load_network("paper")
    operations, seconds, highest = 0.0, 0.0, 0.0
    for cost in network_cost(network).rows:
        row = network.rows[cost.name]
        if (kind == "conv") != isinstance(row, rows.Conv) or not isinstance(row, rows.WeightedRow):
            continue
        formats = [torch.contiguous_format, torch.channels_last] if kind == "conv" else [torch.contiguous_format]
        best = min(
            fastest_seconds(product(row, cost, device, batch, memory_format), device, repeats)
            for memory_format in formats
        )
        count = 2 * cost.multiply_adds * batch * (2 if cost.reads == "image" else 3)
        operations, seconds, highest = operations + count, seconds + best, max(highest, count / best)
    return operations / seconds, highest


def product(
    row: rows.WeightedRow, cost: RowCost, device: torch.device, batch: int, memory_format: torch.memory_format
) -> Callable[[], object]:
    """Forward and backward of one row, without its bias; the image gets no gradient."""
    towers = 2 if cost.reads == "both" else 1
    if isinstance(row, rows.Conv):
        channels, height, width = cost.input_shape
        extra = sum(row.pad)
        shape = (batch, towers * channels, height + extra, width + extra)
        inputs = torch.randn(shape, device=device).to(memory_format=memory_format)
        weight = torch.randn(row.kernels, shape[1], row.size, row.size, device=device).to(memory_format=memory_format)
    else:
        inputs = torch.randn(batch, towers * torch.Size(cost.input_shape).numel(), device=device)
        weight = torch.randn(cost.output_shape[0], inputs.shape[1], device=device)
    wanted = [weight.requires_grad_()]
    if cost.reads != "image":
        wanted.append(inputs.requires_grad_())

    def forward() -> Tensor:
        return F.conv2d(inputs, weight, stride=row.stride) if isinstance(row, rows.Conv) else F.linear(inputs, weight)

    gradient = torch.ones_like(forward())

    def work() -> object:
        return torch.autograd.grad(forward(), wanted, gradient)

    return work


def row_passes(device: torch.device, batch: int, bandwidth: float, repeats: int) -> dict[str, float]:
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
        seconds[cost.kind] = seconds.get(cost.kind, 0.0) + fastest_seconds(once(layer, maps), device, repeats)
        passes[cost.kind] = passes.get(cost.kind, 0.0) + maps.numel() * 4 / bandwidth
    return {kind: seconds[kind] / passes[kind] for kind in seconds}


def once(layer: nn.Module, maps: Tensor) -> Callable[[], object]:
    """Forward and backward of one layer."""
    gradient = torch.ones_like(layer(maps))

    def work() -> object:
        return torch.autograd.grad(layer(maps), maps, gradient)

    return work


def optimizer_passes(device: torch.device, bandwidth: float, repeats: int) -> float:
    """Passes over the parameters of an update, at the copy's bandwidth."""
    sizes = [2048 * 9216, 2048 * 4096, 1000 * 2048]
    parameters = [nn.Parameter(torch.randn(size, device=device)) for size in sizes]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer = PaperSGD([{"params": parameters, "lr": 1e-9, "weight_decay": 5e-4}], momentum=0.9)
    return fastest_seconds(optimizer.step, device, repeats) * bandwidth / (4 * sum(sizes))


def link_of(device: torch.device, repeats: int) -> dict[str, float]:
    """Latency, bandwidth, all-reduce and what a transfer takes of the device's own work, with the next process."""
    rank, world = dist.get_rank(), dist.get_world_size()
    after, before = (rank + 1) % world, (rank - 1) % world
    out, inn = (torch.zeros(PAYLOAD // 4, device=device) for _ in range(2))

    def exchange(count: int) -> list[dist.Work]:
        return [dist.isend(out[:count], after), dist.irecv(inn[:count], before)]

    def wait(works: list[dist.Work]) -> None:
        for work in works:
            work.wait()

    latency = fastest_seconds(lambda: wait(exchange(1)), device, 50)
    seconds = fastest_seconds(lambda: wait(exchange(out.numel())), device, 10 * repeats)
    bucket = torch.zeros(BUCKET // 4, device=device)
    reduced = fastest_seconds(lambda: dist.all_reduce(bucket), device, 5 * repeats)
    left, right = (torch.randn(1024, 1024, device=device) for _ in range(2))

    def compute() -> None:
        for _ in range(6):
            torch.mm(left, right)

    def both() -> None:
        works = [work for _ in range(4) for work in exchange(out.numel())]
        compute()
        wait(works)

    alone, together = (fastest_seconds(work, device, 10 * repeats) for work in (compute, both))
    bandwidth = PAYLOAD / max(seconds - latency, 1e-9)
    lost = (together - max(alone, 4 * seconds)) / min(alone, 4 * seconds)
    return {
        "bandwidth": bandwidth,
        "latency_seconds": latency,
        "all_reduce_bandwidth": 2 * (world - 1) / world * BUCKET / reduced,
        "compute_lost": min(1.0, max(0.0, lost)),
    }


def measure(rank: int, world: int, kind: str, batch: int, repeats: int, folder: str) -> None:
    """One process on one device; rank 0 leaves the averages over all in `folder`."""
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    torch.set_num_threads(1)
    if world > 1:
        store = f"file://{folder}/store"
        backend = "nccl" if kind == "cuda" else "gloo"
        limit = timedelta(seconds=120)
        dist.init_process_group(backend, store, world_size=world, rank=rank, timeout=limit)
    source, target = (torch.zeros(32_000_000, device=device) for _ in range(2))
    copying = fastest_seconds(lambda: target.copy_(source), device, 5 * repeats)
    bandwidth = 2 * 4 * source.numel() / copying
    one = torch.zeros(1, device=device)
    launches = fastest_seconds(lambda: [one.add_(1) for _ in range(1000)], device, 3)
    found = {"bandwidth": bandwidth, "launch": launches / 1000}
    for name, row_kind in (("conv", "conv"), ("matmul", "fc")):
        found[name], found[f"highest_{name}"] = products(device, batch, row_kind, repeats)
    found |= {f"passes.{name}": value for name, value in row_passes(device, batch, bandwidth, repeats).items()}
    found["passes.optimizer"] = optimizer_passes(device, bandwidth, repeats)
    if world > 1:
        found |= {f"link.{name}": value for name, value in link_of(device, repeats).items()}
    torch.save(found, Path(folder) / f"{rank}.pt")
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


def one_process(rank: int, world: int, batch: int, repeats: int, folder: str) -> None:
    """Convolutions and copies of one process with as many threads as there are cores, the others idle."""
    torch.set_num_threads(world)
    device = torch.device("cpu")
    conv, _ = products(device, batch, "conv", repeats)
    source, target = (torch.zeros(32_000_000) for _ in range(2))
    copying = fastest_seconds(lambda: target.copy_(source), device, 5 * repeats)
    torch.save({"conv": conv, "bandwidth": 2 * 4 * source.numel() / copying}, Path(folder) / "one.pt")


def description(kind: str, count: int, batch: int, found: dict[str, float], one: dict[str, float] | None) -> str:
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
        f"#   python benchmarks/device.py --device {kind} --count {count} --batch-size {batch}",
        f"# {software}",
        f"name: {count}_{kind}_devices",
        f"devices: {count}",
        f"peak_flops: {{float32: {peak:.4g}}}     # the fastest single product of a tower's step, forward and backward",
        f"achieved: {{convolution: {found['conv'] / peak:.3f}, matmul: {found['matmul'] / peak:.3f}, memory: 1.0}}"
        f"     # all of them; {found['conv'] / 1e9:.1f} and {found['matmul'] / 1e9:.1f} GFLOP/s",
        f"memory_bandwidth: {found['bandwidth']:.4g}     # bytes/s read and written by a copy, all devices at once",
        f"memory_bytes: {memory}",
        f"launch_seconds: {found['launch']:.2g}",
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--count", type=int, help="devices; default: every core or GPU, at most two")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    kind = arguments.device
    count = arguments.count or min(2, torch.cuda.device_count() if kind == "cuda" else usable_cores())
    if count < 1 or arguments.batch_size < 1 or arguments.repeats < 1:
        parser.error("it takes a device, an image and a repeat or more")
    # For the processes started below: large blocks stay with glibc, as in training, so that no page is mapped anew.
    os.environ |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(32 * 2**30)}
    with tempfile.TemporaryDirectory() as folder:
        sizes = (arguments.batch_size, arguments.repeats)
        multiprocessing.spawn(measure, (count, kind, *sizes, folder), nprocs=count)
        each = [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(count)]
        one = None
        if kind == "cpu" and count > 1:
            multiprocessing.spawn(one_process, (count, *sizes, folder), nprocs=1)
            one = torch.load(Path(folder) / "one.pt", weights_only=True)
    found = {name: statistics.mean(values[name] for values in each) for name in each[0]}
    print(description(kind, count, arguments.batch_size, found, one))
    print(f"load average now {os.getloadavg()[0]:.1f}; on an idle machine it is about {count}", file=sys.stderr)


if __name__ == "__main__":
    main()
