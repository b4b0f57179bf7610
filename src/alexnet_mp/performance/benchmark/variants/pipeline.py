"""Stock PyTorch cut layer-wise, one process for each part, with `torch.distributed.pipelining`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.nn import functional as F

from alexnet_mp.common.host import now
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.single_device import STOCK_PARTS, row_layers
from alexnet_mp.network import rows
from alexnet_mp.network.table import Network
from alexnet_mp.parallel.mesh import Mesh, open_mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.performance.benchmark.measurement import Sent, Task
from alexnet_mp.performance.benchmark.variants.replicas import check_several, stock_sgd
from alexnet_mp.performance.benchmark.variants.train_step import TrainStep

# Or the most below that divide the batch. On two cores the fastest of 2, 4, 8 and 16 at batch 64: with fewer, parts
# wait longer for the first and the last; with more, the gradients of fc6 and fc7 are added up more often.
MICROBATCHES = 4


@contextmanager
def pipelined(task: Task) -> Iterator[TrainStep]:
    """This process's part of the stock network; the cuts are where each part takes about as long."""
    placement = choose_placement("simulated", task.device, 1)
    torch.manual_seed(task.seed)
    with open_mesh(placement, task.deadline_seconds) as mesh:
        device, parts = placement.devices[0], placement.replicas
        blocks = cuttable_blocks(task.network)
        images = torch.randn(task.batch_size // microbatches(task.batch_size, parts), *task.network.image)
        seconds = [
            sum(each) for each in zip(*mesh.gather(time_blocks(task.network, blocks, images.to(device))), strict=True)
        ]
        cuts = balanced_cuts(seconds, parts)
        mine = blocks[cuts[placement.replica] : cuts[placement.replica + 1]]
        part = build_part(task.network, mine).to(device)
        yield pipeline_train_step(part, stock_sgd(part, task), mesh, task.batch_size)


def pipeline_train_step(part: nn.Module, optimizer: torch.optim.Optimizer, mesh: Mesh, batch_size: int) -> TrainStep:
    """One part of the pipeline; the last one has the losses, whose mean is the loss of the batch.

    The schedule runs one forward and one backward pass in turn (1F1B), with the least activations in memory of those
    that fill the pipeline as well; gradients are those of the mean over the whole batch.
    """
    index, count = mesh.placement.replica, mesh.placement.replicas
    device, sent = mesh.placement.devices[0], EdgeBytes(part, first=index == 0, last=index == count - 1)
    stage = PipelineStage(part, index, count, device, group=mesh.replica_group())
    schedule = Schedule1F1B(stage, microbatches(batch_size, count), F.cross_entropy)

    def forward(images: list[Tensor], labels: list[Tensor], step: int) -> list[Tensor]:
        losses: list[Tensor] = []
        arguments = tuple(images) if index == 0 else ()
        if index == count - 1:
            schedule.step(*arguments, target=labels[0], losses=losses, return_outputs=False)
        else:
            schedule.step(*arguments, return_outputs=False)
        return [torch.stack([loss.detach() for loss in losses]).mean()] if losses else []

    return TrainStep(forward, optimizer, mesh, lambda: Sent(pipeline=sent.total), together=True)


class EdgeBytes:
    """Counts what a part sends: outputs to the next part, and to the one before gradients as large as its inputs."""

    def __init__(self, part: nn.Module, first: bool, last: bool) -> None:
        self.total = 0
        self._first, self._last = first, last
        part.register_forward_hook(self._count)

    def _count(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        sent = ([] if self._first else [inputs[0]]) + ([] if self._last else [output])
        self.total += sum(tensor.numel() * tensor.element_size() for tensor in sent if tensor.requires_grad)


def microbatches(batch_size: int, parts: int) -> int:
    """How many parts a batch is cut into; 0 where none of the possible numbers fills a pipeline of so many parts."""
    return next((n for n in range(max(MICROBATCHES, parts), parts - 1, -1) if batch_size % n == 0), 0)


def cuttable_blocks(network: Network) -> list[list[str]]:
    """The rows' names between which the stock network can be cut: not before a ReLU, which overwrites its input."""
    blocks: list[list[str]] = []
    for name, row in network.rows.items():
        if isinstance(row, rows.Relu) and blocks:
            blocks[-1].append(name)
        else:
            blocks.append([name])
    return blocks


def build_part(network: Network, blocks: Sequence[Sequence[str]]) -> nn.Sequential:
    """The layers of some blocks, named as in the whole network."""
    part = nn.Sequential()
    for name in (name for block in blocks for name in block):
        for child, layer in row_layers(network, name, STOCK_PARTS):
            part.add_module(child, layer)
    return part


def time_blocks(network: Network, blocks: Sequence[Sequence[str]], images: Tensor) -> list[float]:
    """Seconds of each block for one microbatch of `images`, forward and backward; one block at a time is in memory."""
    seconds = []
    inputs = images
    for block in blocks:
        part = build_part(network, [block]).to(images.device)
        for _ in range(2):  # the first warms up
            part.zero_grad()
            if inputs is not images:
                inputs = inputs.detach().requires_grad_()
            started = now([images.device])
            outputs: Tensor = part(inputs)
            if outputs.requires_grad:
                outputs.backward(torch.ones_like(outputs))
            spent = now([images.device]) - started
        seconds.append(spent)
        inputs = outputs.detach()
    return seconds


def balanced_cuts(costs: Sequence[float], parts: int) -> list[int]:
    """Where to cut a list into so many runs that the dearest run is as cheap as can be: [0, ..., len(costs)].

    No run is empty. Of equally good cuts, the earliest.
    """

    @cache
    def best(runs: int, end: int) -> tuple[float, list[int]]:
        """The dearest run, and the cuts, of the first `end` entries in so many runs."""
        if runs == 1:
            return sum(costs[:end]), [0, end]
        shorter = ((best(runs - 1, cut), sum(costs[cut:end])) for cut in range(runs - 1, end))
        return min((max(dearest, last), [*cuts, end]) for (dearest, cuts), last in shorter)

    return best(parts, len(costs))[1]


def check_pipeline(network: Network, processes: int, batch_size: int) -> None:
    """Raise ConfigurationError if layers or images are too few for so many parts."""
    check_several(network, processes)
    blocks = len(cuttable_blocks(network))
    if blocks < processes:
        raise ConfigurationError(f"network {network.name} can be cut into {blocks} parts, not into {processes}")
    if not microbatches(batch_size, processes):
        raise ConfigurationError(
            f"batch_size={batch_size} cannot be cut into microbatches for a pipeline of {processes} parts; "
            f"use a multiple of {processes}"
        )
