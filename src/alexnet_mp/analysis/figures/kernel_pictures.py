"""Pictures of the first layer: its kernels in one sheet, and their colorfulness over several runs."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from alexnet_mp.analysis.figures.kernel_color import KernelGroup, RunKernels, group_in_words
from alexnet_mp.analysis.figures.kernels import kernel_sheet

TOWER_COLORS = ("#4c4c4c", "#c8553d", "#3d7dc8", "#5b9a4a")  # tower after tower, then from the front again
TOWER_MARKERS = "ox^s"
_KERNEL_PIXELS = 44  # about the side of a drawn kernel
_DPI = 100


def scale_for(kernels: Sequence[Tensor]) -> int:
    """Pixels a weight, so that kernels of 3x3, 5x5 or 11x11 are drawn at about one size: 14, 8 or 4."""
    return max(2, _KERNEL_PIXELS // kernels[0].shape[-1])


def draw_kernels(run: RunKernels, picture: Path, title: str) -> None:
    """Draw the kernels of all towers, the first tower's rows above the next one's, and below how colorful they are."""
    sheet = kernel_sheet(run.kernels, scale_for(run.kernels))
    height, width = (side / _DPI for side in sheet.shape[:2])
    strip = 0.45 + 0.3 * len(run.colorfulness) if run.colorfulness else 0.0
    left, right, top, gap, bottom = 0.9, 0.3, 0.75, 0.25, 0.5 if run.colorfulness else 0.0
    whole = (max(left + width + right, 6.5), top + height + gap + strip + bottom)
    figure = Figure(figsize=whole, dpi=_DPI)
    axes = figure.add_axes((left / whole[0], 1 - (top + height) / whole[1], width / whole[0], height / whole[1]))
    axes.imshow(sheet, interpolation="nearest", aspect="auto")  # the axes have the sheet's own size
    places = (np.arange(len(run.kernels)) + 0.5) * sheet.shape[0] / len(run.kernels)
    axes.set_yticks(places, [f"tower {t}" for t in range(len(run.kernels))])
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if run.colorfulness:
        beneath = figure.add_axes((left / whole[0], bottom / whole[1], 1 - (left + right) / whole[0], strip / whole[1]))
        for tower, values in enumerate(run.colorfulness):
            _strip(beneath, values, tower, float(tower), along="x")
        beneath.set(xlim=(-0.02, 1.02), ylim=(len(run.colorfulness) - 0.5, -0.5), xlabel="colorfulness of each kernel")
        beneath.set_yticks(range(len(run.colorfulness)), [f"tower {t}" for t in range(len(run.colorfulness))])
        beneath.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, parse_math=False, fontsize=10)  # a name may hold dollar signs
    figure.savefig(picture, dpi=_DPI, format="png")


def draw_kernel_study(groups: Sequence[KernelGroup], picture: Path) -> None:
    """Draw every kernel's colorfulness, a column a run with its towers side by side, as a PNG."""
    columns = sum(len(group.runs) for group in groups)
    figure = Figure(figsize=(max(6.5, 1.5 + 0.85 * columns), 4.6), layout="constrained")
    every = figure.subplots(
        1, len(groups), sharey=True, squeeze=False, gridspec_kw={"width_ratios": [len(group.runs) for group in groups]}
    )[0]
    for axes, group in zip(every, groups, strict=True):
        for place, run in enumerate(group.runs):
            towers = len(run.colorfulness)
            for tower, values in enumerate(run.colorfulness):
                _strip(axes, values, tower, place + 0.42 * (tower - (towers - 1) / 2) / max(1, towers - 1), along="y")
        labels = [
            f"seed {run.seed}\nAUC {run.separation.auc:.2f}\np {run.separation.p_value:.1g}" if run.separation else ""
            for run in group.runs
        ]
        axes.set_xticks(range(len(group.runs)), labels, fontsize=8)
        axes.set(xlim=(-0.6, len(group.runs) - 0.4), ylim=(-0.02, 1.02))
        title = textwrap.fill(group_in_words(group), max(24, 15 * len(group.runs)))
        axes.set_title(title, fontsize=9, parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    every[0].set_ylabel("colorfulness of each kernel")
    handles, names = every[0].get_legend_handles_labels()
    first = dict(zip(reversed(names), reversed(handles), strict=True))
    order = sorted(first)
    every[0].legend([first[name] for name in order], order, frameon=False, loc="upper right", fontsize=8)
    figure.savefig(picture, dpi=120, format="png")


def _strip(axes: Axes, values: Tensor, tower: int, place: float, along: str) -> None:
    """The values as points about `place`, spread by their order and not at random, with a bar at the median."""
    living = np.sort(values[~values.isnan()].numpy())
    spread = place + 0.11 * (np.arange(len(living)) % 5 - 2) / 2
    color, marker = TOWER_COLORS[tower % len(TOWER_COLORS)], TOWER_MARKERS[tower % len(TOWER_MARKERS)]
    across, up = (living, spread) if along == "x" else (spread, living)
    axes.scatter(across, up, s=12, color=color, marker=marker, alpha=0.75, label=f"tower {tower}", lw=0.8)
    if len(living):
        middle, ends = float(np.median(living)), (place - 0.2, place + 0.2)
        axes.plot(*((middle, middle), ends) if along == "x" else (ends, (middle, middle)), color=color, lw=2)
