"""Traces some steps of a run by torch.profiler: `trace.json` in its folder, for ui.perfetto.dev (`profile.steps`)."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.training.log import LOG

Event = dict[str, Any]  # of the trace; times are in microseconds


@contextmanager
def traced_steps(steps: int | None, model: TowerModel, folder: Path) -> Iterator[Callable[[], None]]:
    """Trace so many steps of this process, after the first two; yield what is called after each step. None: no steps.

    Rank 0 writes `trace.json`, rank r `trace-<r>.json`; on GPUs what `torch.cuda.memory_snapshot` says is in
    `memory.json` or `memory-<r>.json`. A disk that takes none of them is a warning.
    """
    if steps is None:
        yield lambda: None
        return
    rank, on_gpus = model.placement.launch.rank, model.placement.on_gpus
    of_rank = f"-{rank}.json" if rank else ".json"

    def write(profiler: profile) -> None:
        model.name_spans(nullcontext)
        path = folder / f"trace{of_rank}"
        try:
            profiler.export_chrome_trace(str(path))
            trace = json.loads(path.read_text())
            trace["traceEvents"] += exchanges(trace["traceEvents"])
            path.write_text(json.dumps(trace))
            if on_gpus:
                (folder / f"memory{of_rank}").write_text(json.dumps(torch.cuda.memory_snapshot()))
            LOG.info("%-10s %s, for ui.perfetto.dev", "trace", path)
        except (OSError, ValueError) as error:
            LOG.warning("%-10s not written: %s", "trace", error)

    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpus else [])]
    plan = schedule(wait=1, warmup=1, active=steps, repeat=1)
    with profile(activities=kinds, schedule=plan, on_trace_ready=write, profile_memory=on_gpus) as profiler:
        model.name_spans(record_function)
        yield profiler.step


def exchanges(events: list[Event]) -> list[Event]:
    """Tracks for what no function spans: each exchange, and each own half of a backward pass, which autograd runs."""
    started: dict[tuple[int, str], Event] = {}
    found: list[Event] = []
    for wait in sorted((each for each in events if each.get("ph") == "X"), key=lambda each: each["ts"]):
        kind, _, crossing = wait["name"].partition(" ")
        start = started.setdefault((wait["tid"], crossing), wait)
        if kind == "start":
            started[wait["tid"], crossing] = wait
        if kind != "wait" or start is wait:
            continue
        times = {"crossing": (start["ts"], wait["ts"] + wait["dur"])}
        if crossing.endswith("backward"):
            times["own half"] = start["ts"] + start["dur"], wait["ts"]
        for name, ends in times.items():
            about = {
                "name": f"{name} {crossing}",
                "cat": name,
                "id": len(found),
                "pid": wait["pid"],
                "tid": wait["tid"],
            }
            found += [{**about, "ph": ph, "ts": ts} for ph, ts in zip("be", ends, strict=True)]
    return found
