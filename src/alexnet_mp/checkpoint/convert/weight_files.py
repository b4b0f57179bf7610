"""Reads files of weights without running anything in them: safetensors, and state dicts that `torch.save` wrote."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from alexnet_mp.common.disk import regular
from alexnet_mp.errors import ConfigurationError, explained

TORCH_SUFFIXES = (".pt", ".pth", ".tar", ".bin")  # by the custom of PyTorch's own examples
_NESTED = ("state_dict", "model")  # where training scripts put the state dict, beside the epoch and so on


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file by name, and what safetensors says beside them.

    A file with one of TORCH_SUFFIXES is read by `torch.load(weights_only=True)`, which makes tensors and plain
    containers and nothing else; any other is safetensors. Raises ConfigurationError if it cannot be read.
    """
    if path.suffix.lower() in TORCH_SUFFIXES:
        return _read_torch(path), {}
    names = ", ".join(TORCH_SUFFIXES)
    what = f"cannot read {path} as safetensors (what torch.save wrote is known by its name, {names})"
    with explained(what, OSError, SafetensorError), safe_open(regular(path), framework="pt") as file:
        metadata = file.metadata() or {}
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118  (not a mapping)


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(regular(path), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make its reader raise nearly anything, with advice to trust the file
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise ConfigurationError(
            f"cannot read {path}: not a file of torch.save that holds tensors alone ({reason}); "
            "save model.state_dict(), not the model"
        ) from error
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ConfigurationError(f"{path} holds no state dict, a mapping of names to tensors")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ConfigurationError(f"{path}: {name!r} is {type(value).__name__}; a state dict has tensors by name")
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise ConfigurationError(f"{path}: {name} is not a tensor of plain numbers")
    return {str(name): tensor.detach() for name, tensor in content.items()}
