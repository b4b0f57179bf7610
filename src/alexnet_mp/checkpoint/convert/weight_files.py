"""Reads files of weights without running anything in them: safetensors, `torch.save`'s state dicts, .caffemodel."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from alexnet_mp.checkpoint.convert.caffemodel import read_caffemodel
from alexnet_mp.common.disk import regular
from alexnet_mp.errors import ConfigurationError, explained

CAFFE_SUFFIX = ".caffemodel"
TORCH_SUFFIXES = (".pt", ".pth", ".tar", ".bin")  # by the custom of PyTorch's own examples
# Where training scripts put the state dict, beside the epoch and so on; one may lie in another.
_NESTED = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module")
_NO_WEIGHTS = {  # how files begin that came in place of weights, and what they are
    rb"version https://git-lfs": "a pointer of Git LFS in place of the file; `git lfs pull` fetches that",
    rb"(\xef\xbb\xbf)?\s*<[!?a-z]": "a page of the web in place of the file; see it in a browser, then download again",
    rb"\x89HDF\r\n\x1a\n": "HDF5, as Keras and Caffe's .h5 are; save its arrays by name as safetensors",
    rb"\x1f\x8b": "compressed; unpack it with gunzip",
    rb"\Z": "empty",
}


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file by name, and what safetensors says beside them.

    A file with one of TORCH_SUFFIXES is read by `torch.load(weights_only=True)`, which makes tensors and plain
    containers and nothing else, a .caffemodel by `read_caffemodel`; any other is safetensors. Raises ConfigurationError
    if it cannot be read, and says what it is instead if it shows.
    """
    with explained(f"cannot read {path}"), path.open("rb") as opened:
        beginning = opened.read(64)
    instead = next((what for begins, what in _NO_WEIGHTS.items() if re.match(begins, beginning, re.IGNORECASE)), "")
    if instead:
        raise ConfigurationError(f"cannot read {path}: it is {instead}")
    if path.suffix.lower() == CAFFE_SUFFIX:
        with explained(f"cannot read {path} as a {CAFFE_SUFFIX}", OSError, ValueError):
            return read_caffemodel(path), {}
    if path.suffix.lower() in TORCH_SUFFIXES:
        return _read_torch(path), {}
    names = ", ".join(TORCH_SUFFIXES)
    what = f"cannot read {path} as safetensors (what torch.save wrote is known by its name, {names})"
    with explained(what, OSError, SafetensorError), safe_open(regular(path), framework="pt") as file:
        metadata = file.metadata() or {}
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118  (not a mapping)


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings(action="ignore"):  # with advice to run the file
            content = torch.load(regular(path), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make its reader raise nearly anything, with advice to trust the file
        held = re.search(r"GLOBAL ([\w.]+)", str(error))
        why = "it is cut off or damaged); get it again"
        if held or "TorchScript" in str(error):
            held_here = held[1] if held else "a program of TorchScript"
            why = f"it holds {held_here}, which runs code); where it was made, save model.state_dict(), not the model"
        what = f"cannot read {path}: not a file of torch.save that holds tensors alone ({why}"
        raise ConfigurationError(what) from error
    for _ in range(8):
        inside = [content[key] for key in _NESTED if isinstance(content, Mapping) and key in content]
        content = next((each for each in inside if isinstance(each, Mapping)), content)
    if not isinstance(content, Mapping) or not content:
        raise ConfigurationError(f"{path} holds no state dict, a mapping of names to tensors")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ConfigurationError(f"{path}: {name!r} is {type(value).__name__}; a state dict has tensors by name")
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise ConfigurationError(f"{path}: {name} is not a tensor of plain numbers")
    return {str(name): tensor.detach() for name, tensor in content.items()}
