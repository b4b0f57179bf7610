"""Times a training step of this launch, and finds how much of its exchanges the computation hides."""

import math
from statistics import median

import torch
from torch import Tensor

from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.performance.benchmark.timed_link import Exchange, TimedLink, added, waiting
from alexnet_mp.performance.benchmark.variants.ours import compile_lrn, towers_train_step
from alexnet_mp.performance.benchmark.variants.train_step import TrainStep, train_steps
from alexnet_mp.performance.machine_check.link import by_replica, why_nothing_is_carried
from alexnet_mp.performance.machine_check.settings import Check, CheckResult, CheckSettings

WARMUP_STEPS = 2  # steps that are not timed; in the first ones memory is new to the process


def prepared_step(
    check: Check, batch_size: int, autocast: torch.dtype | None = None, compiled: bool = False
) -> tuple[TrainStep, tuple[list[Tensor], list[Tensor]]]:
    """The training step of this launch with `batch_size` images a replica, its LRN compiled or not, and its batch."""
    mesh, settings = check.mesh, check.settings
    images, link = batch_size * mesh.placement.replicas, TimedLink(check.link) if check.link else None
    model = TowerModel(settings.network, mesh.placement, link, settings.seed)
    compile_lrn(model, compiled)
    train_step = towers_train_step(model, mesh, link, images, autocast)
    return train_step, train_step.random_batch(settings.network, images, settings.seed)


def step_results(check: Check) -> list[CheckResult]:
    """Time a few steps; every process calls it, and gets the same.

    Without the speeds of every passage alone, nothing is carried and nothing can be hidden.
    """
    settings, mesh, speeds = check.settings, check.mesh, check.speeds
    train_step, batch = prepared_step(check, settings.batch_size)
    on_gpu, timed = mesh.placement.on_gpus, train_step.link
    losses = [_timed_step(train_step, *batch, number)[1] for number in range(WARMUP_STEPS)]
    before = train_step.sent()
    if timed:
        timed.exchanges.clear()
    seconds, silent_seconds = [], []
    for number in range(WARMUP_STEPS, WARMUP_STEPS + settings.rounds):
        took, loss = _timed_step(train_step, *batch, number)
        seconds.append(took)
        losses.append(loss)
        if timed and on_gpu and speeds:
            # In turns, so that whatever slows the machine down slows both.
            timed.silent = True
            silent_seconds.append(_timed_step(train_step, *batch, number)[0])
            timed.silent = False
    sent = train_step.sent().a_step(before, settings.rounds).crossing
    results = [_step_result(settings, mesh, seconds, losses, sent, train_step.table_crossing_bytes)]
    if not speeds or not timed:
        return [*results, CheckResult("hidden", "not possible here", why_nothing_is_carried(settings.network))]
    if on_gpu:
        exposed = slowest(mesh, median(seconds)) - slowest(mesh, median(silent_seconds))
    else:
        exposed = exposed_seconds(mesh, timed.exchanges, settings.rounds)
    exposed = max(0.0, exposed)
    alone = sum(speed.seconds for speed in speeds[:-1])  # the last one is the latency
    hidden = max(0.0, 1 - exposed / alone)
    found = (
        f"{hidden:.0%}: a step's exchanges take {1e3 * alone:.2f} ms alone, and {1e3 * exposed:.2f} ms show in a step"
    )
    numbers = {"hidden": hidden, "exposed_seconds": exposed, "alone_seconds": alone}
    return [*results, CheckResult("hidden", "measured", found, numbers)]


def _timed_step(train_step: TrainStep, images: list[Tensor], labels: list[Tensor], number: int) -> tuple[float, float]:
    """Train one step, which all processes begin together; returns its seconds and the loss."""
    train_step.mesh.gather([0.0])
    seconds, losses = train_steps(train_step, images, labels, range(number, number + 1))
    return sum(seconds), losses[0].item()


def _step_result(
    settings: CheckSettings, mesh: Mesh, seconds: list[float], losses: list[float], sent: int, expected: int
) -> CheckResult:
    took = slowest(mesh, median(seconds))
    rate = settings.batch_size * mesh.placement.replicas / took
    everyone = mesh.gather([all(map(math.isfinite, losses)), sent == expected])
    finite, right_bytes = (all(each) for each in zip(*everyone, strict=True))
    numbers = {"seconds": took, "images_per_second": rate, "crossing_bytes": float(sent)}
    found = f"{1e3 * took:.1f} ms for {settings.batch_size} images a replica, {rate:,.0f} images/s"
    if not finite:
        advice = "see whether link and parity pass"
        return CheckResult("step", "fail", f"{found}; a loss is not finite", numbers, advice)
    if not right_bytes:
        found = f"{found}; a tower sent {sent:,} bytes, and the network table says {expected:,}"
        return CheckResult("step", "fail", found, numbers, "report it: this is a mistake of the library")
    return CheckResult("step", "pass", f"{found}, {sent:,} bytes sent by each tower", numbers)


def exposed_seconds(mesh: Mesh, exchanges: list[Exchange], steps: int) -> float:
    """What the tower that waits longest waits in a step once all have posted; a replica's processes share a clock."""
    times = [time for e in exchanges for time in (e.begun, e.posted, e.wait_began, e.wait_ended)]
    everyone = [
        [Exchange(e.crossing, e.direction, *values[4 * i : 4 * i + 4]) for i, e in enumerate(exchanges)]
        for values in mesh.gather(times)
    ]
    waits = [added(totals.values()) for replica in by_replica(mesh, everyone) for totals in waiting(replica)]
    return max(wait.exposed for wait in waits) / steps


def slowest(mesh: Mesh, seconds: float) -> float:
    """Those of the process that takes longest; every process calls it."""
    return max(values[0] for values in mesh.gather([seconds]))
