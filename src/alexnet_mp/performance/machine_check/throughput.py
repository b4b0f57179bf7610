"""Times training steps without data: every batch size and precision, with the LRN compiled and without."""

from itertools import product

import torch

from alexnet_mp.common.device import Precision, set_precision
from alexnet_mp.common.text import count
from alexnet_mp.network import rows
from alexnet_mp.performance.benchmark.variants.train_step import train_steps
from alexnet_mp.performance.machine_check.settings import Check, CheckResult
from alexnet_mp.performance.machine_check.step import WARMUP_STEPS, prepared_step, slowest
from alexnet_mp.training.compile import missing_compiler

SECONDS, MOST_STEPS = 1.0, 500  # of the steps that are timed
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bf16")


def throughput_results(check: Check) -> list[CheckResult]:
    """Images per second of all replicas; every process calls it, and gets the same."""
    device, layers = check.devices[0], check.settings.network.layer_rows.values()
    why_not = {"tf32": "TF32 is a mode of GPUs"} if device.type == "cpu" else {}
    if check.mesh.any(missing_compiler(device) is not None):
        why_not["compiled"] = "no compiler for the LRN"
    elif not any(isinstance(row, rows.LocalResponseNorm) for row in layers):
        why_not["compiled"] = "the network has no LRN"
    results = [CheckResult(f"images/s, {what}", "not possible here", reason) for what, reason in why_not.items()]
    batch_sizes = check.settings.batch_sizes or ((128,) if device.type == "cpu" else (128, 1024))
    for compiled, batch_size, precision in product(("", "compiled"), batch_sizes, PRECISIONS):
        if compiled not in why_not and precision not in why_not:
            set_precision(precision)
            name = f"images/s, {', '.join(filter(None, (f'batch {batch_size:,}', precision, compiled)))}"
            results.append(_of_one_way(check, name, batch_size, precision == "bf16", bool(compiled)))
    set_precision("float32")
    return results


def _of_one_way(check: Check, name: str, batch_size: int, bf16: bool, compiled: bool) -> CheckResult:
    try:
        autocast = torch.bfloat16 if bf16 else None
        train_step, batch = prepared_step(check, batch_size, autocast, compiled)
        for step in range(WARMUP_STEPS):
            took, _ = train_steps(train_step, *batch, range(step, step + 1))
        steps = max(1, min(MOST_STEPS, int(SECONDS / slowest(check.mesh, sum(took)))))
        seconds, _ = train_steps(train_step, *batch, range(WARMUP_STEPS, WARMUP_STEPS + steps))
    except torch.OutOfMemoryError:
        return CheckResult(name, "not possible here", "does not fit into the device's memory")
    rate = steps * batch_size * check.mesh.placement.replicas / slowest(check.mesh, sum(seconds))
    return CheckResult(name, "measured", f"{rate:,.0f}, over {count(steps, 'step')}", {"images_per_second": rate})
