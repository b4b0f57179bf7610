"""Reads and writes one checkpoint: a safetensors file per tower and a JSON file; its folder appears whole or not."""

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from alexnet_mp.common.disk import flush, regular, write_whole
from alexnet_mp.errors import ConfigurationError, explained
from alexnet_mp.network.table import Network

FORMAT_VERSION = 3
CHECKPOINT_FILE = "checkpoint.json"
_MOMENTUM = "momentum."


class Abandoned(RuntimeError):
    """Another process could not write its part of a checkpoint."""


def save_checkpoint(
    folder: Path,
    state_dict: Mapping[str, Tensor],
    network: Network,
    description: Mapping[str, Any],
    timeout_seconds: float,
    momentum: Mapping[str, Tensor] | None = None,
    abandoned: threading.Event | None = None,
) -> None:
    """Write the towers in `state_dict`, which may be all of the network's or those that this process holds.

    Every process of one replica calls it, with the same `folder`. Each writes its towers into a folder of another
    name. The process of tower 0 waits for the others' finished files (no collective: nothing but crossings
    communicates on the towers' group), adds `description` and the files' SHA-256 as JSON, and renames the folder.

    `momentum` has the optimizer's buffers under the parameters' names. Raises OSError if the disk does not take it,
    TimeoutError if a tower's file does not come, Abandoned if `abandoned` is set while it is waited for. What
    was there before is never touched.
    """
    towers = _by_tower(state_dict, momentum or {})
    partial = unfinished(folder)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        for tower, tensors in towers.items():
            path = _tower_file(partial, tower)
            write_tensors(path, tensors)
            write_whole(_digest_file(partial, tower), _sha256(path).encode())
        if 0 not in towers:
            return
        everyone = range(network.towers)
        _wait_for([_digest_file(partial, tower) for tower in everyone], timeout_seconds, abandoned)
        files = {_tower_file(partial, t).name: _digest_file(partial, t).read_text("utf-8") for t in everyone}
        head = {"format_version": FORMAT_VERSION, "network": network.to_mapping(), "sha256_of_files": files}
        write_whole(partial / CHECKPOINT_FILE, _encoded({**head, **description, **head}))
        for tower in everyone:
            _digest_file(partial, tower).unlink()
        flush(partial)
        partial.replace(folder)
        flush(folder.parent)
    except BaseException:
        if 0 in towers:
            shutil.rmtree(partial, ignore_errors=True)  # it may be what fills the disk
        raise


def load_checkpoint(
    folder: str | Path, towers: Sequence[int] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The parameters named `towers.<t>.<layer>.<tensor>` of some towers, or of all, and the checkpoint's description.

    A process that holds one tower reads that tower's file alone: `towers=list(model.placement.devices)`. The
    description has the network table under `network`. Raises ConfigurationError if the folder is no
    checkpoint, is of another format, or one of the files to be read is missing or damaged.
    """
    tensors, description = _load(Path(folder), towers)
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(_MOMENTUM)}, description


def load_momentum(folder: Path, towers: Sequence[int]) -> dict[str, Tensor]:
    """The optimizer's buffers of some towers, under the parameters' names; raises as `load_checkpoint`."""
    tensors, _ = _load(folder, towers)
    return {name.removeprefix(_MOMENTUM): t for name, t in tensors.items() if name.startswith(_MOMENTUM)}


def verify_checkpoint(folder: Path) -> dict[str, Any]:
    """The description of a checkpoint whose every file is as it was written; raises ConfigurationError otherwise."""
    description = _read_description(folder)
    for tower in range(description["network"]["towers"]):
        _check_file(_tower_file(folder, tower), description)
    return description


def unfinished(folder: Path) -> Path:
    """Where a checkpoint is until it is whole."""
    return folder.with_name(f".{folder.name}.partial")


def _load(folder: Path, towers: Sequence[int] | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    description = _read_description(folder)
    tensors: dict[str, Tensor] = {}
    for tower in range(description["network"]["towers"]) if towers is None else towers:
        path = _tower_file(folder, tower)
        _check_file(path, description)
        with explained(f"checkpoint file {path} is missing or damaged", OSError, SafetensorError):
            tensors.update(load_file(path))
    return tensors, description


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / CHECKPOINT_FILE
    unreadable = (OSError, ValueError, KeyError, TypeError, RecursionError)
    with explained(f"{folder} is not a checkpoint: cannot read its {CHECKPOINT_FILE}", *unreadable):
        raw = regular(path).read_bytes()
        content = json.loads(raw)
        version, digest = content["format_version"], content.pop("sha256")
        if version == FORMAT_VERSION and type(content["network"]["towers"]) is not int:
            raise TypeError("network.towers is no number")
        as_written = _encoded(content)
    if version != FORMAT_VERSION:
        raise ConfigurationError(f"{folder} has checkpoint format {version}; this version reads {FORMAT_VERSION}")
    if as_written != raw:  # byte for byte, so that a change of white space is found too
        raise ConfigurationError(f"checkpoint file {path} is damaged: its content does not have the SHA-256 {digest}")
    return dict(content)


def _check_file(path: Path, description: Mapping[str, Any]) -> None:
    with explained(f"checkpoint file {path} is missing or damaged", OSError, KeyError, TypeError, ValueError):
        expected = dict(description["sha256_of_files"])[path.name]
        found = _sha256(regular(path))
    if found != expected:
        raise ConfigurationError(f"checkpoint file {path} is damaged: SHA-256 {found}, when it was written {expected}")


def _encoded(content: Mapping[str, Any]) -> bytes:
    """`content` as JSON, with the SHA-256 of all of it but that line."""
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return (json.dumps({**content, "sha256": digest}, indent=2, allow_nan=False) + "\n").encode()


def _by_tower(weights: Mapping[str, Tensor], momentum: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    towers: dict[int, dict[str, Tensor]] = {}
    for prefix, tensors in (("", weights), (_MOMENTUM, momentum)):
        for name, tensor in tensors.items():
            of_tower = towers.setdefault(int(name.split(".")[1]), {})
            of_tower[prefix + name] = tensor.detach().contiguous()
    return towers


def _tower_file(folder: Path, tower: int) -> Path:
    return folder / f"tower-{tower}.safetensors"


def _digest_file(partial: Path, tower: int) -> Path:
    """What says that a tower's file is finished; gone when the checkpoint is whole."""
    return partial / f"tower-{tower}.sha256"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _wait_for(paths: list[Path], timeout_seconds: float, abandoned: threading.Event | None) -> None:
    deadline = time.monotonic() + timeout_seconds
    while missing := [path for path in paths if not path.exists()]:
        if abandoned and abandoned.is_set():
            raise Abandoned(f"the process of {missing[0].stem} could not write it")
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_seconds:.0f} s for {missing[0].stem}, which its process did not write")
        time.sleep(0.005)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file. Raises OSError if the disk does not take it."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        save_file(dict(tensors), unfinished, metadata)
    except SafetensorError as error:  # which it raises for a full disk too
        raise OSError(str(error)) from error
    flush(unfinished)
    unfinished.replace(path)
