"""The keys of `conf/evaluate.yaml` and `conf/classify.yaml`, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from alexnet_mp.common.schema import PositiveFloat, PositiveInt, from_mapping
from alexnet_mp.data.manifest import LARGEST_SIZE
from alexnet_mp.errors import ConfigurationError


@dataclass(frozen=True)
class DataChanges:
    """What to take in place of the data that a checkpoint was trained on; None: as the checkpoint says."""

    source: Literal["digits", "pack"] | None = None
    path: str | None = None
    verify: bool | None = None


@dataclass(frozen=True)
class InputChanges:
    """What to take in place of a checkpoint's scale of the input; None: as the checkpoint says."""

    pixel_divisor: float | None = None
    mean: Literal["pixel", "center"] | None = None


@dataclass(frozen=True)
class EvaluateSettings:
    """Everything that `launch/evaluate.py` can be told; see `conf/evaluate.yaml` for the meaning of each key."""

    checkpoint: str | tuple[str, ...]
    views: Literal[1, 10]
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

    @property
    def folders(self) -> list[Path]:
        """The checkpoints' folders, one or the members of an ensemble."""
        named = (self.checkpoint,) if isinstance(self.checkpoint, str) else self.checkpoint
        return [Path(name).absolute() for name in named]

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.precision == "float64" else torch.float32


def parse_evaluate_settings(configuration: Mapping[str, Any]) -> EvaluateSettings:
    """Check a composed configuration. Raises ConfigurationError that names the key, unknown ones included."""
    settings = from_mapping(EvaluateSettings, configuration, "")
    folders = [folder.resolve() for folder in settings.folders]
    if not folders or len(set(folders)) < len(folders):
        raise ConfigurationError(
            f"checkpoint=[{','.join(map(str, folders))}]: an ensemble has one checkpoint or more, each named once"
        )
    return settings


@dataclass(frozen=True)
class ClassifySettings:
    """Everything that `launch/classify.py` can be told; see `conf/classify.yaml` for the meaning of each key."""

    checkpoint: str
    pictures: str | tuple[str, ...]
    out: str | None
    views: Literal[1, 10]
    data: DataChanges
    input: InputChanges
    mean_color: tuple[float, float, float] | None
    size: int
    class_names: str | None
    device: str
    max_pixels: int

    @property
    def paths(self) -> list[Path]:
        """The files of the photographs."""
        return [Path(name) for name in ((self.pictures,) if isinstance(self.pictures, str) else self.pictures)]


def parse_classify_settings(configuration: Mapping[str, Any]) -> ClassifySettings:
    """Check a composed configuration. Raises ConfigurationError that names the key, unknown ones included."""
    settings = from_mapping(ClassifySettings, configuration, "")
    for name, most in (("size", LARGEST_SIZE), ("max_pixels", 1 << 40)):
        if not 1 <= getattr(settings, name) <= most:
            raise ConfigurationError(f"{name}={getattr(settings, name)} must be from 1 to {most}")
    if not settings.paths:
        raise ConfigurationError("pictures=[] names no file; add pictures=[FILE,FILE]")
    if settings.mean_color is not None and not all(0 <= each <= 255 for each in settings.mean_color):
        raise ConfigurationError(f"mean_color={list(settings.mean_color)} must be three numbers from 0 to 255")
    return settings
