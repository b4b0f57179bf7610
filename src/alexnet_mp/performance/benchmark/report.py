"""The report for a terminal: what was run on, a line a variant, and how to read it."""

from collections.abc import Mapping
from statistics import median
from typing import Any

from alexnet_mp.performance.benchmark.output import machine_text, table_of
from alexnet_mp.performance.benchmark.variants import OTHER_NETWORKS, SPLIT, STOCK_BASELINE, TUNED_BASELINE, VARIANTS

STEP_PARTS = ("forward", "backward", "exposed_crossing", "skew", "optimizer")


def variants_text(report: Mapping[str, Any]) -> str:
    """`summarize_variants`'s values: one table for each setup."""
    setups = report.get("sweep", [report])
    names = list(dict.fromkeys(name for setup in setups for name in setup["variants"]))
    lines = [
        machine_text(report["machine"], " of a variant"),
        f"rounds: {report['rounds']}, steps in each: {report['steps']}, after {report['warmup_steps']} to warm up; "
        f"seed {report['seed']}; our LRN {'' if report['compile'] else 'not '}compiled; turns repeated, because "
        f"something else had taken the machine: {report['repeated_turns']}",
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
    baselines = {name: variants[name] for name in (TUNED_BASELINE, STOCK_BASELINE) if name in variants}
    bound, speed = setup["matrix_bound"], setup["matrix_bound_images_per_second"]
    alone = f"{speed:.4g} images/s, spread {bound['spread']:.0%}" if bound else "not measured"
    return [
        f"{setup['network']}, towers: {setup['towers']}, images {image}, batch {setup['batch_size']}; matrix products "
        f"alone: {alone}",
        "",
        *table_of([_row(name, values, baselines) for name, values in variants.items()]),
        *_parts(variants),
        *(f"{name} was left out: {reason}" for name, reason in setup["left_out"].items()),
        *(["", *_compared(variants)] if SPLIT in variants else []),
    ]


def _row(name: str, values: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    keys = ("crossing_bytes_per_step", "all_reduce_bytes_sent_in_a_ring", "pipeline_bytes_per_step")
    sent = sum(int(values[key]) for key in keys)
    seconds = {part: f"{spent:.3f}" for part, spent in values["step_seconds"].items() if spent is not None}
    if values["crossings"] is None:
        del seconds["exposed_crossing"], seconds["skew"]
    if "forward" not in seconds:  # both passes at once: the sum stands between the two columns
        seconds |= {"forward": "both:", "backward": seconds["forward_and_backward"]}
    return {
        "variant": name,
        "processes x threads": f"{values['processes']} x {values['threads_per_process']}",
        "images/s": f"{values['images_per_second']:.4g}",
        "spread": f"{values['spread']:.0%}",
        "of bound": "" if values["fraction_of_bound"] is None else f"{values['fraction_of_bound']:.0%}",
        **{
            f"to {other}": f"{values['images_per_second'] / its['images_per_second']:.2f}"
            for other, its in baselines.items()
        },
        **{f"{part.split('_')[0]} s": seconds.get(part, "") for part in STEP_PARTS},
        "peak MB": f"{values['peak_memory_bytes'] / 1e6:,.0f}",
        "parameters": f"{max(values['parameters_per_process']):,}",
        "sent MB": f"{sent / 1e6:,.1f}" if sent else "",
    }


def _parts(variants: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where the time of a step goes, variant by variant."""
    rows = [
        {"seconds of a step": name, **{kind: f"{seconds:.3f}" for kind, seconds in parts.items()}}
        for name, values in variants.items()
        if (parts := values["parts_of_a_step"])
    ]
    return ["", *table_of(rows)] if rows else []


def _compared(variants: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How the split stands against the others that train the same network, round by round; tuned ones first."""
    split = variants[SPLIT]
    lines = []
    others = [name for name in variants if name not in (SPLIT, *OTHER_NETWORKS)]
    for name in sorted(others, key=lambda name: "tuned" not in name):
        values = variants[name]
        # After a failure one may have fewer rounds, the first ones.
        rounds = zip(split["images_per_second_of_rounds"], values["images_per_second_of_rounds"], strict=False)
        ratios = [fast / slow for fast, slow in rounds]
        memory = split["peak_memory_bytes"] / values["peak_memory_bytes"]
        lines.append(
            f"{SPLIT} to {name}: {median(ratios):.2f} times as fast, {min(ratios):.2f} to {max(ratios):.2f} over the "
            f"rounds; {memory:.0%} of its peak memory in a process"
        )
    table, counted = split["table_crossing_bytes_per_step"], split["crossing_bytes_per_step"]
    lines.append(f"A tower sends {counted:,} bytes a step; by the network table it must send {table:,}.")
    return lines
