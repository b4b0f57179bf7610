"""Dropout masks from a counter-based generator: hashed where they are used, so none is drawn ahead or uploaded.

Whether a unit is kept is a function of (seed, step, layer, tower, the image's place in the global batch, unit) in
integer operations, which give the same bits on every device, in any number of processes and threads. A 64-bit word
of the hash serves 64 units if p is one half, and two units otherwise.
"""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.rows import Dropout
from alexnet_mp.network.table import Network

UNITS_OF_A_HALF = 64  # units that share a word if p is one half: a bit each
UNITS_OTHERWISE = 2  # 32 bits each

# The increment, multipliers and shifts of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
# generators", OOPSLA 2014, figure 17).
_INCREMENT = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31


class DropoutMasks:
    """The masks of the dropout layers of those `towers` of a network that live on one device, step by step."""

    def __init__(self, network: Network, towers: Sequence[int], device: torch.device) -> None:
        self._device = device
        costs = network_cost(network)
        self._alike: dict[tuple[tuple[int, ...], float], list[tuple[int, str]]] = {}  # what is made together
        for name, row in network.layer_rows.items():
            if isinstance(row, Dropout):
                kind = costs.row(name).output_shape, row.p
                self._alike.setdefault(kind, []).extend((tower, name) for tower in towers)
        self._counters: list[Tensor] = []
        self._counted: tuple[int, int] | None = None  # the images that the counters are of

    def draw(self, seed: int, step: int, first: int, images: int) -> dict[tuple[int, str], Tensor]:
        """True where a unit is kept, [images, *units], by tower and the layer's full name.

        The images are those from place `first` on in the global batch of `step`.
        """
        if self._counted != (first, images):  # once a run
            self._counters = [self._count(*kind, first, images) for kind in self._alike]
            self._counted = first, images
        key = _key(seed, "dropout", step)
        return {
            layer: mask
            for ((shape, p), layers), counters in zip(self._alike.items(), self._counters, strict=True)
            for layer, mask in zip(layers, _kept(hashed(counters + key), shape, p), strict=True)
        }

    def _count(self, shape: tuple[int, ...], p: float, first: int, images: int) -> Tensor:
        """A hash of its own for every word of every image, [layers, images, words]."""
        words = -(-math.prod(shape) // (UNITS_OF_A_HALF if p == 0.5 else UNITS_OTHERWISE))
        places = torch.arange(first, first + images, device=self._device)[:, None] << 24  # more words than images have
        places = (places + torch.arange(words, device=self._device)) * _signed(_INCREMENT)
        return torch.stack([hashed(places + _key("dropout", name, tower)) for tower, name in self._alike[shape, p]])


def hashed(words: Tensor) -> Tensor:
    """SplitMix64's finalizer on int64 words, in place: each output bit depends on all input bits."""
    for shift, multiplier in _ROUNDS:
        words = words.bitwise_xor_(_shifted(words, shift)).mul_(_signed(multiplier))
    return words.bitwise_xor_(_shifted(words, _LAST_SHIFT))


def _kept(words: Tensor, shape: tuple[int, ...], p: float) -> Tensor:
    """From words [layers, images, words], masks [layers, images, *shape] that are True with probability 1 - p."""
    if p == 0.5:
        bits = 1 << torch.arange(8, dtype=torch.uint8, device=words.device)[:, None]  # outside, as long rows are quick
        kept = (words.view(torch.uint8)[:, :, None] & bits).bool()  # [layers, images, 8, bytes]
    else:
        kept = words.view(torch.int32) >= round(p * 2**32) - 2**31
    return kept.flatten(2)[..., : math.prod(shape)].reshape(*words.shape[:2], *shape)


def _shifted(words: Tensor, by: int) -> Tensor:
    """`words` >> `by` without their sign, which int64's shift would copy."""
    return (words >> by).bitwise_and_((1 << (64 - by)) - 1)


def _key(*parts: int | str) -> int:
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return _signed(int.from_bytes(digest, "big"))


def _signed(word: int) -> int:
    """The int64 that has the same 64 bits."""
    return word - 2**64 if word >= 2**63 else word
