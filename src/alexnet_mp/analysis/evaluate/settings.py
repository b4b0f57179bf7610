"""The keys of `conf/evaluate.yaml` and `conf/classify.yaml`, checked."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import torch

from alexnet_mp.checkpoint.names import find_checkpoint
from alexnet_mp.common.schema import Bound, PositiveFloat, PositiveInt
from alexnet_mp.data.augmentation import ViewCount
from alexnet_mp.data.manifest import LARGEST_SIZE
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.parallel.placement import LinkChoice


@dataclass(frozen=True)
class DataChanges:
    """Changes to the data that a checkpoint was trained on; None keeps what the checkpoint says."""

    source: Literal["digits", "pack", "folder"] | None = None
    path: str | None = None
    verify: bool | None = None
    size: PositiveInt | None = None
    cache: str | None = None


@dataclass(frozen=True)
class InputChanges:
    """Changes to a checkpoint's scale of the input; None keeps what the checkpoint says."""

    pixel_divisor: PositiveFloat | None = None
    mean: Literal["pixel", "center"] | None = None


@dataclass(frozen=True)
class EvaluateSettings:
    """Everything that `launch/evaluate.py` can be told; see `conf/evaluate.yaml` for the meaning of each key."""

    checkpoint: str | tuple[str, ...]
    views: ViewCount
    split: str | None
    data: DataChanges
    input: InputChanges
    batch_size: PositiveInt
    placement: str
    device: str
    precision: Literal["float32", "float64"]
    threads: PositiveInt | None
    timeout_seconds: PositiveFloat
    most_confused: PositiveInt
    out: str | None
    link: LinkChoice = "auto"

    def __post_init__(self) -> None:
        folders = [folder.resolve() for folder in self.folders]
        if not folders or len(set(folders)) < len(folders):
            raise ConfigurationError(
                f"checkpoint=[{','.join(map(str, folders))}]: an ensemble has one checkpoint or more, each named once"
            )

    @cached_property
    def folders(self) -> list[Path]:
        """The checkpoints' folders, one or the members of an ensemble."""
        named = (self.checkpoint,) if isinstance(self.checkpoint, str) else self.checkpoint
        return [find_checkpoint(name) for name in named]

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.precision == "float64" else torch.float32


_MOST_IN_A_PICTURE = 100  # photographs
_Color = Annotated[
    tuple[float, float, float],
    Bound("be three numbers from 0 to 255", lambda color: all(0 <= each <= 255 for each in color)),
]


@dataclass(frozen=True)
class ClassifySettings:
    """Everything that `launch/classify.py` can be told; see `conf/classify.yaml` for the meaning of each key."""

    checkpoint: str
    pictures: Annotated[str | tuple[str, ...], Bound("name a file, or several as [FILE,FILE]", bool)]
    out: str | None
    views: ViewCount
    data: DataChanges
    input: InputChanges
    mean_color: _Color | None
    size: Annotated[int, Bound(f"be from 1 to {LARGEST_SIZE}", lambda size: 1 <= size <= LARGEST_SIZE)]
    class_names: str | None
    device: str
    max_pixels: Annotated[int, Bound("be from 1 to 2^40", lambda pixels: 1 <= pixels <= 1 << 40)]

    def __post_init__(self) -> None:
        if self.out is None:
            return
        out, most = Path(self.out), _MOST_IN_A_PICTURE
        if out.exists():
            raise ConfigurationError(f"out={out} exists already; choose another file")
        if out.suffix.lower() != ".png":
            raise ConfigurationError(f"out={out} must end in .png")
        if len(self.paths) > most:
            raise ConfigurationError(
                f"out={out} has room for {most} photographs, not {len(self.paths)}; leave out= away"
            )

    @property
    def paths(self) -> list[Path]:
        """The files of the photographs."""
        return [Path(name) for name in ((self.pictures,) if isinstance(self.pictures, str) else self.pictures)]
