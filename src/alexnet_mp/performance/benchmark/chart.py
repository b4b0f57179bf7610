"""The comparison as a picture: speed against the bound, memory of a process, and where the time of a step goes.

A sweep of three setups or more along one key is drawn as curves over it.
"""

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from alexnet_mp.common.drawing import BLUE, INK, RUST, SAND, WIDTH, drawing, name_bars
from alexnet_mp.common.text import count
from alexnet_mp.performance.benchmark.variants import OTHER_NETWORKS, VARIANTS

_OURS, _STOCK, _OTHER = (BLUE, ""), (SAND, "////"), ("#bcd3eb", "")  # colors and hatches, told apart in gray too
_EDGE: dict[str, Any] = {"edgecolor": INK, "lw": 0.6}
_SWEPT = {"batch_size": "batch size", "towers": "towers"}
_PARTS = {  # of a step, from dark to light, with what tells them apart in gray
    "forward": ("forward", BLUE, ""),
    "backward": ("backward", "#7fa7d6", ""),
    "forward_and_backward": ("both, interleaved", "#4d7bb1", ".."),
    "exposed_crossing": ("exposed crossing", RUST, ""),
    "skew": ("waiting for a late tower", "#e8e8e8", "xxx"),
    "optimizer": ("update", "#f4ead5", ""),
}


def draw_variants(report: Mapping[str, Any], picture: Path) -> None:
    """Draw `summarize_variants`'s values as a PNG: curves, or three panels for each setup."""
    setups, machine = report.get("sweep", [report]), report["machine"]
    title = (
        f"{report['network']}, images {'x'.join(map(str, report['image']))}: one training step, {machine['threads']} "
        f"threads in all for each variant\n{machine['device']}, torch {machine['versions']['torch']}; medians of "
        f"{count(report['rounds'], 'round')}"
    )
    varied = [key for key in _SWEPT if len({setup[key] for setup in setups}) > 1]
    if len(setups) > 2 and len(varied) == 1:
        with drawing(picture, WIDTH, 3.6, title) as figure:
            _draw_curves(figure, varied[0], sorted(setups, key=itemgetter(varied[0])))
        return
    heights = [2.2 + 0.4 * len(setup["variants"]) for setup in setups]
    with drawing(picture, WIDTH, 0.6 + sum(heights), title) as figure:
        parts = figure.subfigures(len(setups), 1, squeeze=False, height_ratios=heights)
        for part, setup in zip(parts[:, 0], setups, strict=True):
            panels = part.subplot_mosaic([["speed", "memory"], ["step", "step"]], width_ratios=(4, 3))
            _draw_speed(panels["speed"], setup)
            _draw_memory(panels["memory"], setup["variants"])
            _draw_step(panels["step"], setup["variants"])


def _draw_curves(figure: Figure, key: str, setups: Sequence[Mapping[str, Any]]) -> None:
    """Speed and memory of every variant, at the setups that could have it, over what was varied."""
    speed, memory = figure.subplots(1, 2, sharex=True)
    places = [setup[key] for setup in setups]
    for number, name in enumerate(dict.fromkeys(name for setup in setups for name in setup["variants"])):
        found = [(setup[key], setup["variants"][name]) for setup in setups if name in setup["variants"]]
        look: Any = {"marker": "osD^vP*X<>h"[number], "ls": "-" if VARIANTS[name].ours else ":"}
        at = [place for place, _ in found]
        (drawn,) = speed.plot(
            at, [values["images_per_second"] for _, values in found], label=_in_words([name])[0], **look
        )
        memory.plot(at, [values["peak_memory_bytes"] / 1e6 for _, values in found], color=drawn.get_color(), **look)
    bounds = [(setup[key], setup["matrix_bound_images_per_second"]) for setup in setups]
    measured = [(place, bound) for place, bound in bounds if bound]
    if measured:
        speed.plot(*zip(*measured, strict=True), color="black", ls="--", label="matrix products alone")
    for axes, title in ((speed, "speed, images/s"), (memory, "peak memory of a process, MB above the imports")):
        axes.set_xscale("log", base=2)
        axes.set_xticks(places, map(str, places))
        axes.set(xlabel=_SWEPT[key], title=title, ylim=(0, None))
        axes.grid()
    figure.legend(loc="outside lower center", ncols=3)


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
        axes.text(bound, -0.75, f"matrix products alone: {bound:.3g} ", ha="right", va="center")
    name_bars(axes, _in_words(variants), above=1.1)  # with room for the bound's name
    towers = f", {setup['towers']} towers" if setup["towers"] > 1 else ""
    axes.set(xlabel="images/s, and part of the bound; whiskers: all rounds", xlim=(0, 1.3 * max(bound or 0, *fastest)))
    axes.set_title(f"speed, batch {setup['batch_size']}{towers}")
    looks = {"ours": _OURS, "ours, another network": _OTHER, "stock PyTorch": _STOCK}
    drawn = set(map(_look, variants))
    _add_legend(axes, [(label, *look) for label, look in looks.items() if look in drawn])


def _draw_memory(axes: Axes, variants: Mapping[str, Mapping[str, Any]]) -> None:
    peaks = [values["peak_memory_bytes"] / 1e6 for values in variants.values()]
    processes = [values["processes"] for values in variants.values()]
    labels = [f"{peak:,.0f}" + (f"  x {n}" if n > 1 else "") for peak, n in zip(peaks, processes, strict=True)]
    _draw_bars(axes, list(variants), peaks, labels, peaks)
    name_bars(axes, [""] * len(peaks), above=1.1)
    axes.set(
        xlabel="MB above the imports, in each process", xlim=(0, 1.4 * max(peaks)), title="peak memory of a process"
    )


def _draw_bars(
    axes: Axes,
    names: Sequence[str],
    lengths: Sequence[float],
    labels: Sequence[str],
    ends: Sequence[float],
    whiskers: list[list[float]] | None = None,
) -> None:
    """A bar for each variant, in the color of whose code it is, and its label behind `ends`."""
    bars = axes.barh(range(len(names)), lengths, 0.72, xerr=whiskers, ecolor=INK, capsize=2, **_EDGE)
    for place, (bar, name, label, end) in enumerate(zip(bars, names, labels, ends, strict=True)):
        color, hatch = _look(name)
        bar.set(facecolor=color, hatch=hatch)
        text = axes.text(end + 0.02 * max(ends), place, label, va="center", zorder=3)
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})  # over the bound's line


def _draw_step(axes: Axes, variants: Mapping[str, Mapping[str, Any]]) -> None:
    parts = {name: {part: _seconds(values, part) for part in _PARTS} for name, values in variants.items()}
    longest = max(sum(seconds.values()) for seconds in parts.values())
    for place, seconds in enumerate(parts.values()):
        start = 0.0
        for part, spent in seconds.items():
            _, color, hatch = _PARTS[part]
            if spent:
                axes.barh(place, spent, 0.72, left=start, color=color, hatch=hatch, **_EDGE)
            start += spent
        axes.text(start + 0.01 * longest, place, f"{start:.3g}", va="center")
    name_bars(axes, _in_words(variants))
    axes.set(xlabel="seconds, in the slowest process", xlim=(0, 1.1 * longest), title="where a step's time goes")
    _add_legend(axes, [look for part, look in _PARTS.items() if any(seconds[part] > 0 for seconds in parts.values())])


def _look(variant: str) -> tuple[str, str]:
    """The color and the hatch of a variant's bars."""
    return _OTHER if variant in OTHER_NETWORKS else _OURS if VARIANTS[variant].ours else _STOCK


def _add_legend(axes: Axes, looks: Sequence[tuple[str, str, str]]) -> None:
    """`looks` are labels, colors and hatches."""
    handles = [Patch(facecolor=color, hatch=hatch, label=label, **_EDGE) for label, color, hatch in looks]
    axes.legend(handles=handles, ncols=len(looks), loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=4.5)


def _seconds(values: Mapping[str, Any], part: str) -> float:
    seconds = values["step_seconds"]
    if part == "forward_and_backward" and seconds["forward"] is not None:
        return 0.0  # its two parts are drawn
    return seconds[part] or 0.0


def _in_words(variants: Iterable[str]) -> list[str]:
    return [name.replace("_", " ") for name in variants]
