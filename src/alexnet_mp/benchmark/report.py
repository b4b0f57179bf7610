"""The report: medians over the rounds as plain values for JSON, and as a table for a terminal."""

import platform
from collections.abc import Mapping
from statistics import median
from typing import Any

from alexnet_mp.benchmark.contenders import BASELINE, CONTENDERS
from alexnet_mp.benchmark.measurement import Measurement
from alexnet_mp.benchmark.rounds import Turn
from alexnet_mp.benchmark.settings import BenchmarkSettings
from alexnet_mp.cores import usable_cores
from alexnet_mp.machine import versions

PARTS = ("forward", "backward", "optimiser")


def summarise(
    settings: BenchmarkSettings, turns: Mapping[str, list[Turn]], left_out: Mapping[str, str], threads: int, load: float
) -> dict[str, Any]:
    """What was measured, as plain values.

    For each contender `images_per_second` is the median over the rounds and `spread` (max - min) / median;
    `step_seconds` are medians over the rounds for the slowest process, in seconds a step; `peak_memory_bytes` is the
    fullest process's in any round (see `Measurement`); `crossing_bytes_per_step` is what one tower sends in a step, as
    counted, with `table_crossing_bytes_per_step` beside it. `load` is the machine's load average before the first turn.
    """
    names = {name for all_turns in turns.values() for turn in all_turns for process in turn for name in process.devices}
    return {
        "network": settings.network.name,
        "image": list(settings.network.image),
        "batch_size": settings.batch_size,
        "rounds": settings.rounds,
        "steps": settings.steps,
        "warmup_steps": settings.warmup_steps,
        "seed": settings.seed,
        "machine": {
            "device": ", ".join(sorted(names)),
            "platform": f"{platform.system()} {platform.machine()}",
            "cores": usable_cores(),
            "threads": threads,
            "load_average_before": load,
            "versions": versions(),
        },
        "contenders": {name: _contender(settings.batch_size, all_turns) for name, all_turns in turns.items()},
        "left_out": dict(left_out),
    }


def _contender(batch_size: int, turns: list[Turn]) -> dict[str, Any]:
    slowest = [max(turn, key=_step_seconds) for turn in turns]
    speeds = [batch_size / process.step_seconds for process in slowest]
    ranks = range(len(turns[0]))
    peaks = [max(turn[rank].peak_memory_bytes for turn in turns) for rank in ranks]
    return {
        "images_per_second": median(speeds),
        "spread": (max(speeds) - min(speeds)) / median(speeds),
        "images_per_second_of_rounds": speeds,
        "step_seconds": {part: median(getattr(process, f"{part}_seconds") for process in slowest) for part in PARTS},
        "processes": len(ranks),
        "threads_per_process": turns[0][0].threads,
        "peak_memory_bytes": max(peaks),
        "peak_memory_bytes_per_process": peaks,
        "parameters_per_process": [turns[0][rank].parameters for rank in ranks],
        "crossing_bytes_per_step": max(process.crossing_bytes_per_step for process in turns[0]),
        "table_crossing_bytes_per_step": turns[0][0].table_crossing_bytes_per_step,
    }


def _step_seconds(process: Measurement) -> float:
    return process.step_seconds


def as_text(report: Mapping[str, Any]) -> str:
    """`summarise`'s values for a terminal: what was run on, a line a contender, and how to read it."""
    machine, contenders = report["machine"], report["contenders"]
    software = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    image = "x".join(map(str, report["image"]))
    lines = [
        f"{report['network']}, images {image}, batch {report['batch_size']}; rounds: {report['rounds']}, "
        f"steps in each: {report['steps']}, after {report['warmup_steps']} to warm up; seed {report['seed']}",
        f"{machine['device']}; {machine['threads']} threads for each contender, {machine['cores']} cores, "
        f"load average before the start {machine['load_average_before']:.1f}; {machine['platform']}; {software}",
        "",
        *_table(contenders),
        "",
        *(f"{name}: {CONTENDERS[name].meaning}" for name in contenders),
        *(f"{name} was left out: {reason}" for name, reason in report["left_out"].items()),
        "images/s: median over the rounds; spread: (max - min) / median. Seconds: a step, in the slowest process.",
        "Peak memory: of the fullest process, above what it held after its imports. Parameters: of the largest one.",
        "Crossing bytes: what one tower sends in a step, counted on the link.",
    ]
    if {"split_two_processes", "split_one_process"} <= set(contenders):
        lines.append(_gain_of_processes(contenders["split_two_processes"], contenders["split_one_process"]))
    return "\n".join(lines)


def _gain_of_processes(two: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    rounds = zip(two["images_per_second_of_rounds"], one["images_per_second_of_rounds"], strict=True)
    ratios = [fast / slow for fast, slow in rounds]
    return (
        f"The split alone, the same layers in two processes against one: {median(ratios):.2f} times as fast, "
        f"{min(ratios):.2f} to {max(ratios):.2f} over the rounds. Against {BASELINE} the layers differ too."
    )


def _table(contenders: Mapping[str, Mapping[str, Any]]) -> list[str]:
    baseline = contenders.get(BASELINE)
    header = ["contender", "processes x threads", "images/s", "spread", f"to {BASELINE}"]
    header += [f"{part} s" for part in PARTS]
    header += ["peak MB", "parameters", "crossing bytes", "by the table"]
    rows = [
        [
            name,
            f"{values['processes']} x {values['threads_per_process']}",
            f"{values['images_per_second']:.4g}",
            f"{values['spread']:.0%}",
            f"{values['images_per_second'] / baseline['images_per_second']:.2f}" if baseline else "",
            *(f"{values['step_seconds'][part]:.3f}" for part in PARTS),
            f"{values['peak_memory_bytes'] / 1e6:,.0f}",
            f"{max(values['parameters_per_process']):,}",
            f"{values['crossing_bytes_per_step']:,}",
            f"{values['table_crossing_bytes_per_step']:,}",
        ]
        for name, values in contenders.items()
    ]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    rule = "  ".join("-" * width for width in widths)
    first, *rest = ("  ".join(_aligned(row, widths)) for row in [header, *rows])
    return [first, rule, *rest]


def _aligned(row: list[str], widths: list[int]) -> list[str]:
    cells = zip(row, widths, strict=True)
    return [cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(cells)]
