"""One process of a turn: build, warm up, time some training steps, and write what was measured.

python -m alexnet_mp.performance.benchmark.worker FOLDER, where FOLDER has the task and receives one result a process;
torchrun starts several.
"""

import faulthandler
import math
import os
import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from alexnet_mp.common.gpu import energy_joules
from alexnet_mp.common.host import device_name, peak_device_bytes, resident_bytes
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.performance.benchmark.matrix_bound import MATRIX_BOUND, measure_matrix_work
from alexnet_mp.performance.benchmark.measurement import MatrixWork, Measurement, Task, read_record, write_record
from alexnet_mp.performance.benchmark.step_parts import step_parts
from alexnet_mp.performance.benchmark.variants import VARIANTS
from alexnet_mp.performance.benchmark.variants.train_step import TrainStep, train_steps

# The task's file, and those of each rank's measurement and of what it printed.
TASK, RESULT, LOG = "task.json", "result-{}.json", "log-{}"
GPU_ROUND_SECONDS = 2.0  # some 20 renewals of the energy counter, which comes every 20 to 100 ms (common/gpu.py)


def work(folder: Path) -> None:
    """Carry out the task in `folder`, or end at its deadline with a traceback that shows where the process was."""
    held = resident_bytes("now")
    rank = Launch.from_environment().rank
    # Away from torchrun's own messages, which would bury it; as descriptors, for what is not printed by Python.
    with (folder / LOG.format(rank)).open("w", encoding="utf-8") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    task = read_record(Task, folder / TASK)
    # From a thread of its own, outside the interpreter, so that it also ends a process that hangs inside a collective.
    faulthandler.dump_traceback_later(task.deadline_seconds, exit=True)
    torch.set_num_threads(task.threads)
    record: Measurement | MatrixWork
    if task.variant == MATRIX_BOUND:
        record = measure_matrix_work(task)
    else:
        with VARIANTS[task.variant].build(task) as train_step:
            record = _measure(task, train_step, held)
    write_record(record, folder / RESULT.format(rank))
    faulthandler.cancel_dump_traceback_later()


def _measure(task: Task, train_step: TrainStep, held: int) -> Measurement:
    batch = train_step.random_batch(task.network, task.batch_size, task.seed)
    train_steps(train_step, *batch, range(task.warmup_steps))
    steps = steps_of_a_round(task, train_step, *batch)
    train_step.mesh.gather([0.0])  # all begin together
    before, joules_before = train_step.sent(), energy_joules(train_step.devices)
    if train_step.link:
        train_step.link.exchanges.clear()
    seconds, last = train_steps(train_step, *batch, range(task.warmup_steps, task.warmup_steps + steps))
    sent, joules = train_step.sent().a_step(before, steps), energy_joules(train_step.devices)
    losses = [loss.item() for loss in last]
    if not all(math.isfinite(loss) for loss in losses):
        raise FloatingPointError(f"the losses of {task.variant} are {losses}")
    forward, backward, update = (part / steps for part in seconds)
    exchanges = tuple(train_step.link.exchanges) if train_step.link and train_step.link.exchanges else None
    next_step = task.warmup_steps + steps
    one_more = partial(train_steps, train_step, *batch, range(next_step, next_step + 1))
    return Measurement(
        steps=steps,
        forward_seconds=forward,
        backward_seconds=backward,
        optimizer_seconds=update,
        together=train_step.together,
        peak_memory_bytes=max(
            peak_device_bytes(device) - (0 if device.type == "cuda" else held) for device in train_step.devices
        ),
        parameters=train_step.parameters,
        sent=sent,
        table_crossing_bytes=train_step.table_crossing_bytes,
        joules_per_step=None if joules is None or joules_before is None else (joules - joules_before) / steps,
        exchanges=exchanges,
        parts=step_parts(one_more) if train_step.devices[0].type == "cpu" else None,
        threads=torch.get_num_threads(),
        devices=tuple(sorted({device_name(device) for device in train_step.devices})),
    )


def steps_of_a_round(task: Task, train_step: TrainStep, images: list[Tensor], labels: list[Tensor]) -> int:
    """As many as the task says, and on GPUs as many as take GPU_ROUND_SECONDS, found by timing steps beforehand.

    The same in every process of the variant.
    """
    steps = task.steps
    while train_step.devices[0].type == "cuda":
        seconds, _ = train_steps(train_step, images, labels, range(steps))
        shortest = min(each for (each,) in train_step.mesh.gather([sum(seconds)]))
        if shortest >= GPU_ROUND_SECONDS:
            break
        steps = math.ceil(1.1 * steps * GPU_ROUND_SECONDS / shortest)
    return steps


if __name__ == "__main__":
    work(Path(sys.argv[1]))
