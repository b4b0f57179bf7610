"""Draws the first kernels of one run, and how colorful the kernels of several runs are."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from alexnet_mp.analysis.figures.kernel_color import KernelGroup, RunKernels, group_in_words
from alexnet_mp.common.drawing import DPI, drawing, name_bars
from alexnet_mp.training.kernel_sheet import kernel_sheet

_TOWER_COLORS = ("#4c4c4c", "#c8553d", "#3d7dc8", "#5b9a4a")  # tower after tower, then from the front again
_TOWER_MARKERS = "ox^s"
_KERNEL_PIXELS = 88  # about the side of a drawn kernel


def scale_for(kernels: Sequence[Tensor]) -> int:
    """Pixels a weight, so that kernels of 3x3, 5x5 or 11x11 are drawn at about one size: 29, 17 or 8."""
    return max(2, _KERNEL_PIXELS // kernels[0].shape[-1])


def draw_kernels(run: RunKernels, picture: Path, title: str) -> None:
    """Draw the kernels of all towers, the first tower's rows above the next one's, and below how colorful they are."""
    sheet = kernel_sheet(run.kernels, scale_for(run.kernels))
    height, width = (side / DPI for side in sheet.shape[:2])
    towers, strips = [f"tower {t}" for t in range(len(run.kernels))], 0.45 + 0.3 * len(run.colorfulness)
    heights = [height, strips] if run.colorfulness else [height]
    with drawing(picture, max(width + 0.9, 6.5), sum(heights) + 0.7, title) as figure:
        above, *beneath = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        above.imshow(sheet, interpolation="nearest")
        above.set_yticks((np.arange(len(towers)) + 0.5) * sheet.shape[0] / len(towers), towers)
        above.tick_params(bottom=False, labelbottom=False, left=False)
        above.spines[:].set_visible(False)
        for axes in beneath:
            for tower, values in enumerate(run.colorfulness):
                _strip(axes, values, tower, float(tower), along="x")
            name_bars(axes, towers)
            axes.set(xlim=(-0.02, 1.02), xlabel="colorfulness of each kernel")


def draw_kernel_study(groups: Sequence[KernelGroup], picture: Path) -> None:
    """Draw every kernel's colorfulness, a column a run with its towers side by side, as a PNG."""
    widths = [len(group.runs) for group in groups]
    width = max(6.5, 1.5 + 0.75 * sum(widths))
    with drawing(picture, width, 4.4) as figure:
        every = figure.subplots(1, len(groups), sharey=True, squeeze=False, width_ratios=widths)[0]
        for axes, group in zip(every, groups, strict=True):
            for place, run in enumerate(group.runs):
                towers = len(run.colorfulness)
                for tower, values in enumerate(run.colorfulness):
                    beside = 0.42 * (tower - (towers - 1) / 2) / max(1, towers - 1)
                    _strip(axes, values, tower, place + beside, along="y")
            labels = [
                f"seed {run.seed}\nAUC {run.separation.auc:.2f}\np {run.separation.p_value:.1g}"
                if run.separation
                else ""
                for run in group.runs
            ]
            axes.set_xticks(range(len(group.runs)), labels)
            axes.set(xlim=(-0.6, len(group.runs) - 0.4), ylim=(-0.02, 1.02))
            letters = int(12 * (width - 1) * len(group.runs) / sum(widths))  # as many stand above its columns
            axes.set_title(textwrap.fill(group_in_words(group).replace("_", " "), letters))
            axes.grid(axis="y")
        every[0].set_ylabel("colorfulness of each kernel")
        handles, names = every[0].get_legend_handles_labels()
        shown = dict(sorted(zip(names, handles, strict=True), key=lambda pair: pair[0]))  # each tower once
        figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=len(shown))


def _strip(axes: Axes, values: Tensor, tower: int, place: float, along: str) -> None:
    """The values as points about `place`, spread by their order and not at random, with a bar at the median."""
    living = np.sort(values[~values.isnan()].numpy())
    spread = place + 0.11 * (np.arange(len(living)) % 5 - 2) / 2
    color, marker = _TOWER_COLORS[tower % len(_TOWER_COLORS)], _TOWER_MARKERS[tower % len(_TOWER_MARKERS)]
    across, up = (living, spread) if along == "x" else (spread, living)
    axes.scatter(across, up, s=12, color=color, marker=marker, alpha=0.75, label=f"tower {tower}", lw=0.8)
    if len(living):
        middle, ends = float(np.median(living)), (place - 0.2, place + 0.2)
        axes.plot(*((middle, middle), ends) if along == "x" else (ends, (middle, middle)), color=color, lw=2)
