"""Reads the weights of a .caffemodel: the few fields of Caffe's protobuf that hold them, with a bound on every length.

Field numbers are those of src/caffe/proto/caffe.proto in github.com/BVLC/caffe.
"""

import math
import mmap
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

_LAYERS = {100: (1, 7), 2: (4, 6)}  # NetParameter's layer and, of V1, layers; the name and the blobs of each
_SIDES = (1, 2, 3, 4)  # BlobProto's num, channels, height, width, before it had a shape
_DATA, _SHAPE, _DIM = 5, 7, 1  # of BlobProto, and of its BlobShape
_KINDS = ("weight", "bias", "blob2", "blob3", "blob4")
_MOST_BLOBS, _LONGEST_SHAPE, _LONGEST_NAME = 10_000, 320, 256  # the two in bytes


def read_caffemodel(path: Path) -> dict[str, Tensor]:
    """The weights by name, `conv1.weight` and `conv1.bias`, in the shapes that the file gives them.

    Blobs of the older four-dimensional form stay so: a bias is [1, 1, 1, n]. Nothing larger than the file is made.
    Raises OSError, and ValueError for bytes that are no .caffemodel, are cut off or contradict themselves.
    """
    weights: dict[str, Tensor] = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for number, _, layer in _fields(content, slice(0, len(content))):
            name, blobs = "", list[Tensor]()
            for field, _, place in _fields(content, layer) if number in _LAYERS else ():
                if field == _LAYERS[number][0]:
                    name = content[place][:_LONGEST_NAME].decode("utf-8", "replace")
                elif field == _LAYERS[number][1]:
                    blobs.append(_blob(content, place))
                if len(weights) + len(blobs) > _MOST_BLOBS:
                    raise ValueError(f"it has more than {_MOST_BLOBS:,} blobs")
            found = {f"{name}.{kind}": blob for kind, blob in zip(_KINDS, blobs, strict=False)}
            if weights.keys() & found:
                raise ValueError(f"two layers in it are called {name!r}")
            weights |= found
    if not weights:
        raise ValueError("no layer in it has weights; a mean image and a .solverstate have none")
    return weights


def _blob(content: mmap.mmap, place: slice) -> Tensor:
    sides, shape, data = dict.fromkeys(_SIDES, 0), list[int](), bytearray()
    for number, value, inside in _fields(content, place):
        if number in sides:
            sides[number] = value
        elif number == _DATA:  # packed, all numbers at once, or one after the other
            data += content[inside]
        elif number == _SHAPE and inside.stop - inside.start <= _LONGEST_SHAPE:
            dims = ((side, packed) for field, side, packed in _fields(content, inside) if field == _DIM)
            shape = [each for side, packed in dims for each in _varints(content, packed) or [side]]
    shape = shape or list(sides.values())
    if not data or len(data) != 4 * math.prod(shape):
        raise ValueError(f"a blob of shape {shape} has {len(data) / 4:g} numbers of float32")
    return torch.frombuffer(data, dtype=torch.float32).view(shape)


def _fields(content: mmap.mmap, place: slice) -> Iterator[tuple[int, int, slice]]:
    """Each field of a message: its number, its value if that is a number, and otherwise where its bytes lie."""
    at = place.start
    while at < place.stop:
        key, at = _varint(content, at, place.stop)
        kind, length, value = key & 7, {1: 8, 5: 4}.get(key & 7, 0), 0  # fixed64, fixed32
        if kind == 0:
            value, at = _varint(content, at, place.stop)
        elif kind == 2:
            length, at = _varint(content, at, place.stop)
        if key < 8 or kind not in (0, 1, 2, 5) or length > place.stop - at:
            raise ValueError(f"it is cut off, damaged or of another kind: byte {at:,}")
        yield key >> 3, value, slice(at, at + length)
        at += length


def _varints(content: mmap.mmap, place: slice) -> list[int]:
    found, at = [], place.start
    while at < place.stop:
        value, at = _varint(content, at, place.stop)
        found.append(value)
    return found


def _varint(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and where it ends."""
    value = 0
    for place, byte in enumerate(content[at : min(at + 10, end)]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise ValueError(f"it is cut off or damaged at byte {at:,}")
