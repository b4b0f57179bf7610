"""What a run folder says of its data: the mean image, the classes' names, the fingerprint, and where the data were."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from alexnet_mp.checkpoint.files import write_tensors
from alexnet_mp.common.disk import regular
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.data.dataset import DataSet
from alexnet_mp.errors import ConfigurationError, explained

INPUT_FILE = "input.safetensors"
_FORMAT = "alexnet_mp input 1"
_MEAN = "mean_image"


@dataclass(frozen=True, eq=False)
class RunInput:
    """What classifies photographs without the data: float64 `mean_image` [height, width, channels], and names.

    `fingerprint` is that of the data, and `data_from_run` their path from the run's folder when the run began.
    """

    mean_image: NDArray[np.float64]
    names_for_people: tuple[str, ...]
    fingerprint: int
    data_from_run: str | None


def save_run_input(run: Path, data: DataSet, path: str | None, is_main: bool) -> None:
    """Have the main process write the file into the folder of a run; `path` is that of its data. Raises OSError."""
    if is_main:
        from_run = None if path is None else os.path.relpath(Path(path).resolve(), run.resolve())
        said = {"names_for_people": data.names_for_people, "fingerprint": data.fingerprint(), "data_from_run": from_run}
        mean = torch.from_numpy(data.statistics.mean_image.copy())
        write_tensors(run / INPUT_FILE, {_MEAN: mean}, {"format": _FORMAT, "about": json.dumps(said)})


def read_run_input(run: Path) -> RunInput | None:
    """What is in the folder of a run; None if it has none. Raises ConfigurationError if it is damaged."""
    path = run / INPUT_FILE
    refused = (OSError, SafetensorError, ConfigurationError, ValueError, KeyError, RecursionError)
    with explained(f"cannot read {path}; without that file the data themselves are needed", *refused):
        if not path.exists():
            return None
        with safe_open(regular(path), framework="pt") as file:
            metadata, mean = file.metadata() or {}, file.get_tensor(_MEAN)
        right = mean.ndim == 3 and mean.dtype == torch.float64 and bool(((mean >= 0) & (mean <= 255)).all())
        if not right or metadata.get("format") != _FORMAT:
            raise ConfigurationError(f"its format is not {_FORMAT!r}, or its mean image is no image")
        return from_mapping(RunInput, json.loads(metadata["about"]), "", ready={_MEAN: mean.numpy()})
