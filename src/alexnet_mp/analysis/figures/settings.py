"""The keys of `conf/plot.yaml`, checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from alexnet_mp.analysis.evaluate.settings import DataChanges
from alexnet_mp.checkpoint.names import find_checkpoint
from alexnet_mp.common.schema import Bound, NonNegativeInt, PositiveInt
from alexnet_mp.errors import ConfigurationError

_Images = Annotated[tuple[int, ...], Bound("name an image; null draws images by the seed", bool)]


@dataclass(frozen=True)
class PlotSettings:
    """Everything that `launch/plot.py` can be told; see `conf/plot.yaml` for the meaning of each key."""

    figure: Literal["curves", "kernels", "nearest_neighbors", "relu"] | None
    run_dir: str | None
    checkpoint: str | None
    runs: tuple[str, ...]
    out: str | None
    since_start: bool
    split: str | None
    images: _Images | None
    examples: PositiveInt
    neighbors: NonNegativeInt
    among: PositiveInt | None
    seed: int
    line: Annotated[float, Bound("be an error between 0 and 1", lambda line: 0 < line < 1)]
    data: DataChanges
    device: str
    threads: PositiveInt | None

    def __post_init__(self) -> None:
        of_several = self.figure in ("curves", "kernels", "relu")
        refused = {
            "run_dir is one run and runs are several: give one of them": self.runs and self.run_dir is not None,
            "checkpoint is of one run: give run_dir in place of runs": self.runs and self.checkpoint is not None,
            "of several runs there are figure=curves, kernels and relu; for another give run_dir": self.runs
            and not of_several,
            "runs needs out=FOLDER, to which the figure of all of them is written": self.runs and self.out is None,
            "figure=relu needs runs=[RUN,RUN,...] with ReLU and with tanh": self.figure == "relu" and not self.runs,
            "which run? give run_dir=RUN, or runs=[RUN,RUN,...] with figure=curves, kernels or relu": not self.runs
            and self.run_dir is None,
        }
        for why, is_refused in refused.items():
            if is_refused:
                raise ConfigurationError(why)

    @property
    def run(self) -> Path:
        """The folder of the one run."""
        return Path(self.run_dir or "")

    @property
    def checkpoint_folder(self) -> Path | None:
        """The checkpoint that is named; `@best` and `@330` are of `run_dir`."""
        if self.checkpoint is None:
            return None
        return find_checkpoint(f"{self.run}{self.checkpoint}" if self.checkpoint.startswith("@") else self.checkpoint)

    @property
    def folder(self) -> Path:
        """Where the pictures go."""
        return self.run / "plots" if self.out is None else Path(self.out)
