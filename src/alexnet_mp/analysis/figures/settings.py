"""The keys of `conf/plot.yaml`, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alexnet_mp.analysis.evaluate.settings import DataChanges
from alexnet_mp.analysis.figures.nearest_neighbors import Choice
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.errors import ConfigurationError

Figure = Literal["curves", "kernels", "examples", "relu"]


@dataclass(frozen=True)
class PlotSettings:
    """Everything that `launch/plot.py` can be told; see `conf/plot.yaml` for the meaning of each key."""

    figure: Figure | None
    run_dir: str | None
    checkpoint: str | None
    runs: tuple[str, ...]
    out: str | None
    since_start: bool
    split: str | None
    images: tuple[int, ...] | None
    examples: int
    neighbors: int
    among: int | None
    seed: int
    line: float
    data: DataChanges
    device: str
    threads: int | None

    @property
    def folder(self) -> Path:
        """Where the pictures go."""
        return Path(self.out) if self.out is not None else Path(self.run_dir or "") / "plots"

    @property
    def chosen(self) -> Choice:
        """What Figure 4 shows."""
        return Choice(self.split, self.images, self.examples, self.seed, self.neighbors, self.among)


def parse_plot_settings(configuration: Mapping[str, Any]) -> PlotSettings:
    """Check a composed configuration. Raises ConfigurationError that names the key, unknown ones included."""
    settings = from_mapping(PlotSettings, configuration, "")
    for name in ("examples", "neighbors", "among", "threads"):
        value = getattr(settings, name)
        if value is not None and value < (0 if name == "neighbors" else 1):
            raise ConfigurationError(f"{name} is {value}, must be positive")
    if settings.images is not None and not settings.images:
        raise ConfigurationError("images is empty; null draws images by the seed")
    if settings.run_dir is not None and settings.runs:
        raise ConfigurationError("run_dir is one run and runs are several: give one of them")
    if settings.runs:
        if settings.figure not in ("kernels", "relu"):
            raise ConfigurationError(
                "of several runs there are figure=kernels and figure=relu; for another give run_dir"
            )
        if settings.out is None:
            raise ConfigurationError("runs needs out=FOLDER, where the figure of all of them goes")
    elif settings.figure == "relu":
        raise ConfigurationError("figure=relu needs runs=[RUN,RUN,...] with ReLU and with tanh")
    elif settings.run_dir is None:
        raise ConfigurationError(
            "which run? give run_dir=RUN, or runs=[RUN,RUN,...] with figure=kernels or figure=relu"
        )
    if settings.checkpoint is not None and settings.runs:
        raise ConfigurationError("checkpoint is of one run: give run_dir in place of runs")
    return settings
