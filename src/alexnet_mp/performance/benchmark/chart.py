"""The comparison as a picture: speed against the bound, memory of a process, and where the time of a step goes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from alexnet_mp.common.letters import save_chart
from alexnet_mp.common.text import count
from alexnet_mp.performance.benchmark.variants import OTHER_NETWORKS, VARIANTS

_OURS, _STOCK, _OTHER = "#3b75b3", "#e3b778", "#bcd3eb"  # dark, light and between in gray too; stock is hatched besides
_STOCK_HATCH = "////"
_EDGE = "#222222"
_PARTS = {  # of a step, from dark to light, with what tells them apart in gray
    "forward": ("forward", "#1f4e8c", ""),
    "backward": ("backward", "#7fa7d6", ""),
    "forward_and_backward": ("both, interleaved", "#4d7bb1", ".."),
    "exposed_crossing": ("exposed crossing", "#c0392b", ""),
    "skew": ("waiting for a late tower", "#e8e8e8", "xxx"),
    "optimizer": ("update", "#f4ead5", ""),
}


def draw_variants(report: Mapping[str, Any], picture: Path) -> None:
    """Draw `summarize_variants`'s values as a PNG: three panels, and a row of panels for each setup of a sweep."""
    setups = report.get("sweep", [report])
    heights = [1.6 + 0.42 * len(setup["variants"]) for setup in setups]
    figure = Figure(figsize=(15, 1.3 + sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(setups), 3, squeeze=False, width_ratios=(4, 2.4, 4), height_ratios=heights)
    for (speed, memory, step), setup in zip(panels, setups, strict=True):
        _draw_speed(speed, setup)
        _draw_memory(memory, setup["variants"])
        _draw_step(step, setup["variants"])
    machine = report["machine"]
    figure.suptitle(
        f"{report['network']}, images {'x'.join(map(str, report['image']))}: one training step, "
        f"{machine['threads']} threads in all for each variant\n{machine['device']}, "
        f"torch {machine['versions']['torch']}; medians of {count(report['rounds'], 'round')}",
        parse_math=False,
    )
    save_chart(figure, picture, 120)


def _draw_speed(axes: Axes, setup: Mapping[str, Any]) -> None:
    variants, bound = setup["variants"], setup["matrix_bound_images_per_second"]
    speeds = [values["images_per_second"] for values in variants.values()]
    rounds = [values["images_per_second_of_rounds"] for values in variants.values()]
    fastest = [max(each) for each in rounds]
    whiskers = [
        [speed - min(each) for speed, each in zip(speeds, rounds, strict=True)],
        [most - speed for speed, most in zip(speeds, fastest, strict=True)],
    ]
    labels = [f"{speed:.3g}" for speed in speeds]
    for place, (name, values) in enumerate(variants.items()):
        if bound and name not in OTHER_NETWORKS:  # whose work is not the bound's
            labels[place] += f"  ({values['fraction_of_bound']:.0%})"
    _draw_bars(axes, list(variants), speeds, labels, fastest, whiskers)
    if bound:
        axes.axvline(bound, color="black", ls="--", lw=1.2)
        axes.text(bound, -0.75, f"matrix products alone: {bound:.3g} ", ha="right", va="center", fontsize=8)
    _name_bars(axes, list(variants))
    towers = f", {setup['towers']} towers" if setup["towers"] > 1 else ""
    axes.set(
        xlabel="images/s (and part of the bound); whiskers: all rounds", xlim=(0, 1.16 * max(bound or 0, *fastest))
    )
    axes.set_title(f"speed, batch {setup['batch_size']}{towers}", fontsize=10)
    _add_legend(
        axes, [("ours", _OURS, ""), ("ours, another network", _OTHER, ""), ("stock PyTorch", _STOCK, _STOCK_HATCH)]
    )


def _draw_memory(axes: Axes, variants: Mapping[str, Mapping[str, Any]]) -> None:
    peaks = [values["peak_memory_bytes"] / 1e6 for values in variants.values()]
    processes = [values["processes"] for values in variants.values()]
    labels = [f"{peak:,.0f}" + (f"  x {n}" if n > 1 else "") for peak, n in zip(peaks, processes, strict=True)]
    _draw_bars(axes, list(variants), peaks, labels, peaks)
    _name_bars(axes, [""] * len(peaks))
    axes.set(xlabel="MB above the imports, in each process", xlim=(0, 1.3 * max(peaks)))
    axes.set_title("peak memory of a process", fontsize=10)


def _draw_bars(
    axes: Axes,
    names: Sequence[str],
    lengths: Sequence[float],
    labels: Sequence[str],
    ends: Sequence[float],
    whiskers: list[list[float]] | None = None,
) -> None:
    """A bar for each variant, in the color of whose code it is, and its label behind `ends`."""
    bars = axes.barh(range(len(names)), lengths, 0.72, xerr=whiskers, ecolor=_EDGE, capsize=3, edgecolor=_EDGE, lw=0.6)
    for place, (bar, name, label, end) in enumerate(zip(bars, names, labels, ends, strict=True)):
        ours = _OTHER if name in OTHER_NETWORKS else _OURS
        bar.set(facecolor=ours if VARIANTS[name].ours else _STOCK, hatch="" if VARIANTS[name].ours else _STOCK_HATCH)
        text = axes.text(end + 0.02 * max(ends), place, label, va="center", fontsize=8, zorder=3)
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})  # over the bound's line


def _draw_step(axes: Axes, variants: Mapping[str, Mapping[str, Any]]) -> None:
    parts = {name: {part: _seconds(values, part) for part in _PARTS} for name, values in variants.items()}
    longest = max(sum(seconds.values()) for seconds in parts.values())
    for place, seconds in enumerate(parts.values()):
        start = 0.0
        for part, spent in seconds.items():
            _, color, hatch = _PARTS[part]
            axes.barh(place, spent, 0.72, left=start, color=color, hatch=hatch, edgecolor=_EDGE, lw=0.6 * (spent > 0))
            start += spent
        axes.text(start + 0.01 * longest, place, f"{start:.3g}", va="center", fontsize=8)
    _name_bars(axes, [""] * len(variants))
    axes.set(xlabel="seconds a step, in the slowest process", xlim=(0, 1.1 * longest))
    axes.set_title("where a step's time goes", fontsize=10)
    _add_legend(axes, [look for part, look in _PARTS.items() if any(seconds[part] > 0 for seconds in parts.values())])


def _add_legend(axes: Axes, looks: Sequence[tuple[str, str, str]]) -> None:
    """`looks` are labels, colors and hatches."""
    handles = [
        Patch(facecolor=color, hatch=hatch, edgecolor=_EDGE, lw=0.6, label=label) for label, color, hatch in looks
    ]
    axes.legend(handles=handles, fontsize=8, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.13))


def _seconds(values: Mapping[str, Any], part: str) -> float:
    seconds = values["step_seconds"]
    if part == "forward_and_backward" and seconds["forward"] is not None:
        return 0.0  # its two parts are drawn
    return seconds[part] or 0.0


def _name_bars(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -1.1)  # the first at the top, and room for the bound's name above it
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", left=False)
    axes.spines[["top", "right"]].set_visible(False)
