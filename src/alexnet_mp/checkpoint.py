"""Checkpoints: one safetensors file per tower and one JSON, in a folder that appears whole or not at all."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from alexnet_mp.durable import flush
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.table import Network

FORMAT_VERSION = 1
_DESCRIPTION = "checkpoint.json"


def save_checkpoint(
    folder: Path,
    state_dict: Mapping[str, Tensor],
    network: Network,
    description: dict[str, Any],
    timeout_seconds: float,
) -> None:
    """Write the towers in `state_dict`, which may be all of the network's or those that this process holds.

    Every process of one replica calls it, with the same `folder`. Each writes its towers into a folder of another
    name. The process of tower 0 waits for the others' finished files (no collective: nothing but crossings
    communicates on the towers' group), adds `description` as JSON, and renames the folder. Raises TimeoutError where
    a tower's file does not come.
    """
    towers = _by_tower(state_dict)
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    for tower, tensors in towers.items():
        unfinished = partial / f"tower-{tower}.unfinished"
        save_file(tensors, unfinished)
        flush(unfinished)
        unfinished.replace(_tower_file(partial, tower))
    if 0 not in towers:
        return
    _wait_for([_tower_file(partial, tower) for tower in range(network.towers)], timeout_seconds)
    text = json.dumps({"format_version": FORMAT_VERSION, "network": network.to_mapping(), **description}, indent=2)
    (partial / _DESCRIPTION).write_text(text + "\n")
    flush(partial / _DESCRIPTION)
    flush(partial)
    partial.replace(folder)
    flush(folder.parent)


def load_checkpoint(
    folder: str | Path, towers: Sequence[int] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The parameters named `towers.<t>.<layer>.<tensor>` of some towers, or of all, and the checkpoint's description.

    A process that holds one tower reads that tower's file alone: `towers=list(model.placement.devices)`. The
    description has the network table under `network`. Raises ConfigurationError where the folder is no
    checkpoint, is of another format, or a tower's file is missing or damaged.
    """
    folder = Path(folder)
    try:
        description = json.loads((folder / _DESCRIPTION).read_text())
        version, count = description["format_version"], int(description["network"]["towers"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{folder} is not a checkpoint: cannot read its {_DESCRIPTION} ({error})") from error
    if version != FORMAT_VERSION:
        raise ConfigurationError(f"{folder} has checkpoint format {version}; this version reads {FORMAT_VERSION}")
    state: dict[str, Tensor] = {}
    for tower in range(count) if towers is None else towers:
        path = _tower_file(folder, tower)
        try:
            state.update(load_file(path))
        except (OSError, SafetensorError) as error:
            raise ConfigurationError(f"checkpoint file {path} is missing or damaged: {error}") from error
    return state, description


def prune(folder: Path, keep: set[str]) -> None:
    """Remove the checkpoints of `folder` whose names are not in `keep`."""
    for checkpoint in folder.glob("step-*"):
        if checkpoint.name not in keep:
            shutil.rmtree(checkpoint)


def _by_tower(state_dict: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    towers: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state_dict.items():
        towers.setdefault(int(name.split(".")[1]), {})[name] = tensor.detach().contiguous()
    return towers


def _tower_file(folder: Path, tower: int) -> Path:
    return folder / f"tower-{tower}.safetensors"


def _wait_for(paths: list[Path], timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while missing := [path for path in paths if not path.exists()]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_seconds:.0f} s for {missing[0]}, which its process did not write")
        time.sleep(0.005)
