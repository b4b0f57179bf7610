"""How a step uses GPUs: waits of the host, launches, its time beside the GPU's; and whether a stall ends in time."""

import time
import warnings
from collections import Counter
from itertools import count
from pathlib import Path
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

from alexnet_mp.common.host import now
from alexnet_mp.errors import PeerLost
from alexnet_mp.parallel.wait import wait_with_timeout
from alexnet_mp.performance.machine_check.settings import Check, CheckResult
from alexnet_mp.performance.machine_check.step import WARMUP_STEPS, prepared_step, slowest

_WAITS = "called a synchronizing CUDA operation"  # what torch.cuda.set_sync_debug_mode("warn") says
_STALL, _TIME_OUT, _SIDE = 4.0, 1.0, 8192  # seconds of work, and of waiting for it; of products of such matrices


def step_on_gpus(check: Check) -> list[CheckResult]:
    """Queue a few steps; every process calls it, and gets the same."""
    train_step, batch = prepared_step(check, check.settings.batch_size)
    numbers = count()

    def queue() -> float:
        """The host's seconds for a step, which the GPUs begin idle; it is queued and not waited for."""
        began = now(check.devices)
        torch.autograd.backward(train_step.forward(*batch, next(numbers)))
        train_step.optimizer.step()
        train_step.optimizer.zero_grad()
        return time.perf_counter() - began

    host = median([queue() for _ in range(WARMUP_STEPS + check.settings.rounds)][WARMUP_STEPS:])
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            queue()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = Counter(f"{Path(each.filename).name}:{each.lineno}" for each in said if _WAITS in str(each.message))
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        queue()
        now(check.devices)
    events = recorded.key_averages()
    launches = sum(event.count for event in events if "LaunchKernel" in event.key)
    # As torch's own table adds them up: what ran on the device, without the spans that name it.
    on_device = [event for event in events if event.device_type.name == "CUDA" and not event.is_user_annotation]
    device = sum(event.self_device_time_total for event in on_device) / 1e6
    most, launched, host, device = (
        slowest(check.mesh, x) for x in (float(waits.total()), float(launches), host, device)
    )
    where = ", ".join(f"{place} ({times})" for place, times in waits.items()) or "in another process"
    found = f"a step makes the host wait {most:.0f} times: {where}" if most else "nothing in a step makes the host wait"
    spent = f"{launched:,.0f} launches in a step, queued in {1e3 * host:.2f} ms; {1e3 * device:.2f} ms of GPU time"
    times = {"launches": launched, "host_seconds": host, "device_seconds": device}
    return [
        CheckResult("synchronizations", "fail" if most else "pass", found, {"synchronizations": most}),
        CheckResult("host and GPU", "measured", spent, times),
    ]


def stall_result(check: Check) -> list[CheckResult]:
    """Give a GPU work for seconds and wait for it for less: the wait must end by itself, on time."""
    device, waited, found = check.devices[0], 0.0, "the work was done before the time-out"
    matrix = torch.zeros(_SIDE, _SIDE, device=device)
    matrix @ matrix
    began = now([device])
    matrix @ matrix
    for _ in range(int(_STALL / (now([device]) - began)) + 1):
        matrix @ matrix
    began = time.monotonic()
    try:
        wait_with_timeout(device, _TIME_OUT)
    except PeerLost as error:
        waited, found = time.monotonic() - began, str(error)
    now([device])
    in_time = not check.mesh.any(not _TIME_OUT <= waited < _TIME_OUT + 1)
    return [CheckResult("stalled GPU", "pass" if in_time else "fail", found, {"seconds": waited})]
