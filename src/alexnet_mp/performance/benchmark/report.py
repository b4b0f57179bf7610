"""The report for a terminal: what was run on, a line a variant, and how to read it."""

from collections.abc import Mapping
from statistics import median
from typing import Any

from alexnet_mp.performance.benchmark.summary import PARTS
from alexnet_mp.performance.benchmark.variants import BASELINE, OTHER_NETWORKS, SPLIT, VARIANTS


def as_text(report: Mapping[str, Any]) -> str:
    """`summarize`'s values: one table for each setup."""
    machine, setups = report["machine"], report.get("sweep", [report])
    software = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    names = list(dict.fromkeys(name for setup in setups for name in setup["variants"]))
    lines = [
        f"{machine['device']}; {machine['threads']} threads for each variant, {machine['cores']} cores, "
        f"load average before the start {machine['load_average_before']:.1f}; {machine['platform']}; {software}",
        f"rounds: {report['rounds']}, steps in each: {report['steps']}, after {report['warmup_steps']} to warm up; "
        f"seed {report['seed']}; our LRN {'' if report['compile'] else 'not '}compiled",
    ]
    for setup in setups:
        lines += ["", *_setup(setup)]
    lines += [
        "",
        *(f"{name}: {VARIANTS[name].meaning}" for name in names),
        "images/s: median over the rounds; spread: (max - min) / median. Seconds: a step, in the slowest process, "
        "without waits; exposed: the wait at crossings after all towers had posted; skew: that for a late one.",
        "Of bound: of the speed of the table's matrix products alone, each in its faster memory format.",
        "Peak memory: of the fullest process, above what it held after its imports. Parameters: of the largest one.",
        "Sent MB: in a step, by one process: over the crossings, as counted; gradients, in a ring; to the next part.",
    ]
    return "\n".join(lines)


def _setup(setup: Mapping[str, Any]) -> list[str]:
    variants, image = setup["variants"], "x".join(map(str, setup["image"]))
    lines = [
        f"{setup['network']}, towers: {setup['towers']}, images {image}, batch {setup['batch_size']}; matrix products "
        f"alone: {setup['matrix_bound_images_per_second']:.4g} images/s, spread {setup['matrix_bound']['spread']:.0%}",
        "",
        *_table(variants),
        *(f"{name} was left out: {reason}" for name, reason in setup["left_out"].items()),
    ]
    if SPLIT in variants:
        lines += ["", *_compared(variants)]
    return lines


def _compared(variants: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How the split stands against the others that train the same network, round by round."""
    split = variants[SPLIT]
    lines = []
    for name, values in variants.items():
        if name == SPLIT or name in OTHER_NETWORKS:
            continue
        rounds = zip(split["images_per_second_of_rounds"], values["images_per_second_of_rounds"], strict=True)
        ratios = [fast / slow for fast, slow in rounds]
        memory = split["peak_memory_bytes"] / values["peak_memory_bytes"]
        lines.append(
            f"{SPLIT} to {name}: {median(ratios):.2f} times as fast, {min(ratios):.2f} to {max(ratios):.2f} over the "
            f"rounds; {memory:.0%} of its peak memory in a process"
        )
    table, counted = split["table_crossing_bytes_per_step"], split["crossing_bytes_per_step"]
    lines.append(f"A tower sends {counted:,} bytes a step; by the network table it must send {table:,}.")
    return lines


def _table(variants: Mapping[str, Mapping[str, Any]]) -> list[str]:
    baseline = variants.get(BASELINE)
    header = ["variant", "processes x threads", "images/s", "spread", "of bound", f"to {BASELINE}"]
    header += [f"{part.split('_')[0]} s" for part in PARTS]
    header += ["peak MB", "parameters", "sent MB"]
    rows = [
        [
            name,
            f"{values['processes']} x {values['threads_per_process']}",
            f"{values['images_per_second']:.4g}",
            f"{values['spread']:.0%}",
            f"{values['fraction_of_bound']:.0%}",
            f"{values['images_per_second'] / baseline['images_per_second']:.2f}" if baseline else "",
            *_parts(values["step_seconds"], crosses=values["crossings"] is not None),
            f"{values['peak_memory_bytes'] / 1e6:,.0f}",
            f"{max(values['parameters_per_process']):,}",
            f"{sent_bytes(values) / 1e6:,.1f}" if sent_bytes(values) else "",
        ]
        for name, values in variants.items()
    ]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    rule = "  ".join("-" * width for width in widths)
    first, *rest = ("  ".join(_aligned(row, widths)) for row in [header, *rows])
    return [first, rule, *rest]


def sent_bytes(values: Mapping[str, Any]) -> int:
    """What one process, or one tower, of a variant sends in a step."""
    keys = ("crossing_bytes_per_step", "all_reduce_bytes_sent_in_a_ring", "pipeline_bytes_per_step")
    return sum(int(values[key]) for key in keys)


def _parts(seconds: Mapping[str, float | None], crosses: bool) -> list[str]:
    if seconds["forward"] is None:  # both passes at once: the sum stands between the two columns
        return ["both:", f"{seconds['forward_and_backward']:.3f}", "", "", f"{seconds['optimizer']:.3f}"]
    shown = {part: crosses or part not in ("exposed_crossing", "skew") for part in PARTS}
    return [f"{seconds[part]:.3f}" if shown[part] else "" for part in PARTS]


def _aligned(row: list[str], widths: list[int]) -> list[str]:
    cells = zip(row, widths, strict=True)
    return [cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(cells)]
