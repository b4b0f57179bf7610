"""The first layer's kernels for the report: a sheet for each tower, and how far the towers' colors are apart."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from alexnet_mp.analysis.figures.kernels import Separation, colorfulness_of_towers, kernel_sheet, separation
from alexnet_mp.analysis.report.template import EmbeddedImage, embedded_image
from alexnet_mp.errors import ConfigurationError

_SHEET_WIDTH = 700  # pixels, about


@dataclass(frozen=True)
class KernelSheet:
    """One tower's kernels as a picture, and in words how many they are and how colorful."""

    image: EmbeddedImage
    words: str


def kernel_sheets(towers: Sequence[Tensor]) -> tuple[list[KernelSheet], Separation | None]:
    """A sheet for each tower's kernels [kernels, channels, height, width], and the separation of the towers, if any.

    Raises ConfigurationError for kernels whose channels cannot be shown as colors.
    """
    colors = colorfulness_of_towers(towers)
    sheets = []
    for tower, (kernels, color) in enumerate(zip(towers, colors, strict=True)):
        living = color[~color.isnan()]
        side, dead = kernels.shape[-1], len(color) - len(living)
        pixels = kernel_sheet([kernels], scale=max(1, _SHEET_WIDTH // (16 * (side + 1))))
        median = f"median colorfulness {float(living.median()):.2f}" if len(living) else "all of them dead"
        ended = f", {dead} of them dead" if dead and len(living) else ""
        words = f"Tower {tower}: {len(kernels)} kernels of {side}×{side}{ended}, {median}."
        sheets.append(KernelSheet(embedded_image(pixels, is_drawing=True), words))
    try:
        return sheets, separation(colors)
    except ConfigurationError:  # one tower, or one whose kernels are all dead
        return sheets, None
