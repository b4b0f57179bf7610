"""Reads weights that others trained: matches their layers to rows, their order of colors, and their input scale."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from alexnet_mp.checkpoint.convert.layout import single_device_shapes
from alexnet_mp.common.text import printable
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.rows import Convention
from alexnet_mp.network.table import Network, load_network

Layers = dict[frozenset[tuple[str, tuple[int, ...]]], list[str]]  # what tensors are called, and shapes -> layers

# What torchvision.models.alexnet calls the layers of one_weird_trick, in order, and the standard deviations of its
# transforms (torchvision/transforms/_presets.py), 0.229, 0.224, 0.225, times 255.
_OF_TORCHVISION = [f"features.{number}" for number in (0, 3, 6, 8, 10)] + [f"classifier.{n}" for n in (1, 4, 6)]
_STD_OF_TORCHVISION = (58.395, 57.12, 57.375)
_NUMBERS = re.compile(r"\d+")
_SHOWN = 12  # layers of each side in a message


@dataclass(frozen=True)
class ForeignInput:
    """What the network of a file from elsewhere was given, as far as its first layer's weights can make up for it.

    `channels` is the order of its colors: Caffe's nets read `bgr`; None is `rgb` that nobody asked for. `std` is what
    each channel was divided by, on the 0..255 scale and in the order red, green, blue; None if pixels were not divided.
    """

    channels: Literal["rgb", "bgr"] | None = None
    std: tuple[float, ...] | None = None

    @property
    def is_ours(self) -> bool:
        """Whether there is nothing to make up for."""
        return self == ForeignInput()


def as_shown(
    weights: Mapping[str, Tensor],
    is_caffes: bool,
    network: Network | None,
    dropout: Convention | None,
    given: ForeignInput,
) -> tuple[Network | None, Convention | None, ForeignInput, str]:
    """What is known of a file from elsewhere, by its user or else by itself, and in words what the file itself shows.

    Caffe's has blue first, torchvision's alexnet a table and divisors, and both have dropout inverted.
    """
    theirs = None if is_caffes else _torchvisions(weights)
    if is_caffes:
        given = replace(given, channels=given.channels or "bgr")
    elif theirs is not None:
        network, given = network or theirs, replace(given, std=given.std or _STD_OF_TORCHVISION)
    else:
        return network, dropout, given, ""
    dropout, name = dropout or "inverted", network.name if network else "NAME"
    std = f' "input_std={list(given.std)}"'.replace(", ", ",") if given.std else ""
    said = f"network={name} dropout={dropout} channels={given.channels or 'rgb'}{std}"
    return network, dropout, given, f"taken for weights of {'Caffe' if is_caffes else 'torchvision'}: {said}"


def _torchvisions(weights: Mapping[str, Tensor]) -> Network | None:
    """The table of torchvision's alexnet, of any number of classes, if names and shapes are those."""
    shapes = {name.replace("module.", ""): tuple(tensor.shape) for name, tensor in weights.items()}
    network = replace(load_network("one_weird_trick"), classes=(*shapes.get("classifier.6.bias", ()), 1)[0])
    theirs = dict(zip(network.learned_layers, _OF_TORCHVISION, strict=True))
    layers = ((name.rpartition("."), shape) for name, shape in single_device_shapes(network).items())
    return network if shapes == {_tensor(theirs[row], kind): shape for (row, _, kind), shape in layers} else None


def check_scale(key: str, values: Sequence[float] | None) -> None:
    """Raise ConfigurationError for a color or a deviation of pixels between 0 and 1; here they are from 0 to 255."""
    if values and 0 < max(values) < 1:
        said, meant = (f"{key}=[{','.join(f'{by * each:.6g}' for each in values)}]" for by in (1, 255))
        raise ConfigurationError(f'{said} is for pixels from 0 to 1, it seems; for 0 to 255, as here, it is "{meant}"')


def squeezed(weights: Mapping[str, Tensor], network: Network) -> dict[str, Tensor]:
    """The weights without sides of 1 that the table has not: Caffe's older form has a bias as [1, 1, 1, n]."""
    wanted, found = set(single_device_shapes(network).values()), dict(weights)
    for name, tensor in weights.items():
        ends = [tuple(tensor.shape[n:]) for n in range(tensor.ndim) if set(tensor.shape[:n]) <= {1}]
        ends.append(tuple(side for side in tensor.shape if side != 1))
        found[name] = next((tensor.view(shape) for shape in ends if shape in wanted), tensor)
    return found


def renamed(weights: Mapping[str, Tensor], network: Network) -> dict[str, str]:
    """For each tensor that `network` has on a single device, the name that it has in `weights`.

    Where the names are the table's, they count. Otherwise a layer of the file is the row that has its shapes; of
    several with equal shapes, the lower the number in a layer's name the earlier its row, as `features.8` before
    `features.10`. Batch normalization's `num_batches_tracked` is passed over.

    Raises ConfigurationError that lists both sides if a layer fits no row or a row no layer, and if layers of
    equal shapes have names that differ in more than numbers, so that nothing says which comes first.
    """
    given = {name: tuple(t.shape) for name, t in weights.items() if not name.endswith("num_batches_tracked")}
    wanted = single_device_shapes(network)
    if given.keys() == wanted.keys():
        return {name: name for name in wanted}
    layers, rows = _by_shapes(given), _by_shapes(wanted)
    theirs, ours = ({shapes: len(names) for shapes, names in each.items()} for each in (layers, rows))
    if theirs != ours:
        raise ConfigurationError(
            f"these weights do not fit the network {network.name}. In the file and not in the table: "
            f"{_in_words(layers, rows)}. In the table and not in the file: {_in_words(rows, layers)}"
        )
    found: dict[str, str] = {}
    for shapes, names in rows.items():
        for row, layer in zip(names, _in_order(layers[shapes], names), strict=True):
            found |= {_tensor(row, kind): _tensor(layer, kind) for kind, _ in shapes}
    return found


def as_read_by_us(single: Mapping[str, Tensor], network: Network, given: ForeignInput) -> dict[str, Tensor]:
    """The same network for images whose channels are red, green, blue, and not divided: the first layer is rewritten.

    w ((x - mean) / std) = (w / std) (x - mean), so that its weights are divided by `given.std`. The mean is not in the
    weights: it stays the data's. Raises ConfigurationError for an image that has not the channels for it, and if
    another row reads the image before the first layer does.
    """
    if given.is_ours:
        return dict(single)
    check_scale("input_std", given.std)
    channels = network.image[0]
    if given.channels == "bgr" and channels != 3:
        raise ConfigurationError(f"channels=bgr is for three channels; network {network.name} reads {channels}")
    first = next(iter(network.rows))
    if first != network.first_layer:
        raise ConfigurationError(
            f"{first} stands between the image and {network.first_layer}, into whose weights channels= and input_std= "
            "would be folded"
        )
    name = f"{first}.weight"
    weight = single[name]  # [kernels, channels, height, width], or [units, inputs] channel by channel
    by_channel = weight.unflatten(1, (channels, -1))
    if given.channels == "bgr":
        by_channel = by_channel.flip(1)
    if given.std is not None:
        if len(given.std) != channels or not all(0 < each < float("inf") for each in given.std):
            raise ConfigurationError(
                f"input_std={list(given.std)} must be {channels} positive numbers, one for each channel of network "
                f"{network.name}"
            )
        divisors = torch.tensor(given.std, dtype=torch.float64).view(1, -1, *[1] * (by_channel.ndim - 2))
        by_channel = (by_channel.double() / divisors).to(weight.dtype)
    return {**single, name: by_channel.reshape(weight.shape)}


def _by_shapes(shapes: Mapping[str, tuple[int, ...]]) -> Layers:
    """Group layers by the names and shapes of their tensors."""
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        layer, _, tensor = name.rpartition(".")
        layers.setdefault(layer, {})[tensor] = shape
    alike: Layers = {}
    for layer, tensors in layers.items():
        alike.setdefault(frozenset(tensors.items()), []).append(layer)
    return alike


def _in_order(layers: list[str], rows: list[str]) -> list[str]:
    """Layers of equal shapes by the numbers in their names."""
    if len({_NUMBERS.sub("#", layer) for layer in layers}) > 1:
        raise ConfigurationError(
            f"the layers {', '.join(map(printable, layers))} of the file have equal shapes and could each be "
            f"{', '.join(rows)}; name them as the table does, or so that numbers count them"
        )
    return sorted(layers, key=lambda layer: [int(number) for number in _NUMBERS.findall(layer)])


def _in_words(these: Layers, others: Layers) -> str:
    """The layers with shapes that are not as often among the others."""
    found = [
        f"{printable(layer) or 'a layer'} ({', '.join(f'{printable(n)} {list(shape)}' for n, shape in sorted(shapes))})"
        for shapes, layers in these.items()
        if len(layers) != len(others.get(shapes, []))
        for layer in layers
    ]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more if found else "nothing"


def _tensor(layer: str, kind: str) -> str:
    return f"{layer}.{kind}" if layer else kind
