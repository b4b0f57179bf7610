"""Files of tensors: safetensors, written through to the disk, whole or not at all."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from alexnet_mp.common.disk import flush


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file. Raises OSError where the disk does not take it."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        save_file(dict(tensors), unfinished, metadata)
    except SafetensorError as error:  # which it raises for a full disk too
        raise OSError(str(error)) from error
    flush(unfinished)
    unfinished.replace(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises OSError where it is missing or none."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise OSError(str(error)) from error
