"""A .caffemodel is read as Caffe's protobuf lays it out: by this test's own writer, and damaged in 200 ways."""

import random
import resource
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from alexnet_mp import ConfigurationError, to_single_device
from alexnet_mp.checkpoint.convert.caffemodel import read_caffemodel
from alexnet_mp.checkpoint.convert.weight_files import read_weights
from tests.checkpoint.test_foreign_weights import IMAGE, assert_close, images, imported
from tests.support import independent
from tests.support.checkpoints import narrowed, random_weights


def varint(number: int) -> bytes:
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    return bytes([*written, number])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def floats(tensor: Tensor) -> bytes:
    return struct.pack(f"<{tensor.numel()}f", *tensor.flatten().tolist())


def legacy_blob(tensor: Tensor) -> bytes:
    """With num, channels, height, width, the last sides of the tensor's, as Caffe wrote until 2014."""
    sides = [1] * (4 - tensor.ndim) + list(tensor.shape)
    return b"".join(number(n, side) for n, side in enumerate(sides, start=1)) + message(5, floats(tensor))


def blob(tensor: Tensor) -> bytes:
    """With its shape behind the data, and gradients that are nobody's business."""
    shape = message(1, b"".join(map(varint, tensor.shape)))
    return message(5, floats(tensor)) + message(6, floats(tensor + 1)) + message(7, shape)


def unpacked_blob(tensor: Tensor) -> bytes:
    """Every number a field of its own, as a writer may do."""
    shape = message(7, b"".join(number(1, side) for side in tensor.shape))
    return shape + b"".join(varint(5 << 3 | 5) + struct.pack("<f", each) for each in tensor.flatten().tolist())


def v1_layer(name: str, blobs: Sequence[bytes]) -> bytes:
    """A V1LayerParameter: bottom 2, top 3, name 4, type 5, blobs 6, blobs_lr 7."""
    rates = b"".join(varint(7 << 3 | 5) + struct.pack("<f", each) for each in (1, 2))
    head = message(2, b"data") + message(3, name.encode()) + message(4, name.encode()) + number(5, 4)
    return message(2, head + b"".join(message(6, each) for each in blobs) + rates)


def layer(name: str, blobs: Sequence[bytes]) -> bytes:
    """A LayerParameter: name 1, type 2, bottom 3, top 4, blobs 7, phase 10."""
    head = message(1, name.encode()) + message(2, b"Convolution") + message(3, b"data") + message(4, name.encode())
    return message(100, head + b"".join(message(7, each) for each in blobs) + number(10, 1))


WRITERS = {
    "layers, four sides": (v1_layer, legacy_blob),
    "layers, a shape": (v1_layer, blob),
    "layer, a shape": (layer, blob),
    "layer, four sides": (layer, legacy_blob),
    "layer, number by number": (layer, unpacked_blob),
}


def caffemodel(weights: Mapping[str, Tensor], write: str) -> bytes:
    """A whole net: its name, layers without weights, and a layer for each pair of weight and bias."""
    write_layer, write_blob = WRITERS[write]
    names = dict.fromkeys(name.rpartition(".")[0] for name in weights)
    content = message(1, b"AlexNet") + message(3, b"data") + write_layer("data", [])
    for name in names:
        content += write_layer(name, [write_blob(weights[f"{name}.{kind}"]) for kind in ("weight", "bias")])
        content += write_layer(f"relu_{name}", [])
    return content


def bvlc_alexnet(images: Tensor, w: Mapping[str, Tensor]) -> Tensor:
    """The net of models/bvlc_alexnet/deploy.prototxt, but for LRN within each group, in float64; red comes first."""
    w = {name: tensor.double() for name, tensor in w.items()}
    x = images.double()[:, [2, 1, 0]]
    for n, (stride, pad, groups) in enumerate([(4, 0, 1), (1, 2, 2)], start=1):
        x = F.conv2d(x, w[f"conv{n}.weight"], w[f"conv{n}.bias"], stride, pad, 1, groups).relu()
        x = torch.cat([independent.lrn(half, 1e-4 / 5, k=1.0) for half in x.chunk(2, dim=1)], dim=1)
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    for n, groups in [(3, 1), (4, 2), (5, 2)]:
        x = F.conv2d(x, w[f"conv{n}.weight"], w[f"conv{n}.bias"], 1, 1, 1, groups).relu()
    x = F.max_pool2d(x, 3, 2, ceil_mode=True).flatten(1)
    for name in ("fc6", "fc7"):
        x = F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"]).relu()
    return F.linear(x, w["fc8.weight"], w["fc8.bias"])


@pytest.mark.parametrize("write", WRITERS)
def test_a_caffemodel_has_the_logits_of_an_independent_network(
    write: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = narrowed("bvlc_alexnet", IMAGE)
    single = to_single_device(random_weights(network))
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(single, write))
    model = imported(tmp_path / "net.caffemodel", network)  # nobody says that blue comes first, and how dropout is
    assert_close(model(images()), bvlc_alexnet(images(), single).float())
    assert "Caffe: network=bvlc_alexnet dropout=inverted channels=bgr\n" in capsys.readouterr().out


def test_what_is_told_goes_before_what_is_usual(tmp_path: Path) -> None:
    network = narrowed("bvlc_alexnet", IMAGE)
    single = to_single_device(random_weights(network))
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(single, "layer, a shape"))
    model = imported(tmp_path / "net.caffemodel", network, "channels=rgb")
    assert_close(model(images()), bvlc_alexnet(images()[:, [2, 1, 0]], single).float())


SMALL = {"conv1.weight": torch.arange(12.0).view(2, 1, 2, 3), "conv1.bias": torch.tensor([0.5, -1.0])}


@pytest.mark.parametrize("write", WRITERS)
def test_numbers_and_shapes_are_those_of_the_file(write: str, tmp_path: Path) -> None:
    (tmp_path / "a.caffemodel").write_bytes(caffemodel(SMALL, write))
    found = read_caffemodel(tmp_path / "a.caffemodel")
    assert list(found) == list(SMALL)
    assert torch.equal(found["conv1.weight"], SMALL["conv1.weight"])
    shape = (1, 1, 1, 2) if "four" in write else (2,)
    assert torch.equal(found["conv1.bias"], SMALL["conv1.bias"].view(shape))


TWO = SMALL["conv1.bias"]
REFUSED = {
    "an empty file": (b"", "empty"),
    "text": (b"name: 'AlexNet'\nlayer { }\n", "cut off, damaged or of another kind"),
    "a safetensors file": (struct.pack("<Q", 40) + b'{"a":{"dtype":"F32"}}' + bytes(40), "damaged"),
    "no layer": (message(1, b"AlexNet"), "no layer in it has weights"),
    "a mean image": (legacy_blob(torch.zeros(3, 4, 4)), "damaged|no layer in it has weights"),
    "cut off in a layer": (caffemodel(SMALL, "layer, a shape")[:-9], "cut off"),
    "cut off in a number": (caffemodel(SMALL, "layer, a shape") + b"\x80", "cut off"),
    "a length of an exabyte": (varint(100 << 3 | 2) + varint(1 << 60), "cut off, damaged"),
    "a number without end": (b"\xff" * 20, "cut off or damaged at byte 0"),
    "fields without a number": (bytes(100), "damaged"),
    "groups": (varint(100 << 3 | 3) + varint(100 << 3 | 4), "damaged"),
    "more sides than numbers": (
        layer("a", [message(7, message(1, varint(1 << 40) * 3)) + message(5, floats(TWO))]),
        "2 n",
    ),
    "fewer sides than numbers": (layer("a", [message(7, message(1, varint(1))) + message(5, floats(TWO))]), "of shape"),
    "no sides": (layer("a", [message(5, floats(TWO))]), "has 2 numbers"),
    "a side below zero": (
        layer("a", [message(7, message(1, varint((1 << 64) - 2))) + message(5, floats(TWO))]),
        "shape",
    ),
    "half a number": (layer("a", [message(7, message(1, varint(2))) + message(5, floats(TWO)[:7])]), "1.75 numbers"),
    "a thousand sides": (layer("a", [message(7, message(1, varint(1) * 1000)) + message(5, floats(TWO))]), "of shape"),
    "no numbers": (layer("a", [message(7, message(1, varint(0)))]), "has 0 numbers"),
    "ten thousand blobs": (layer("a", [blob(TWO)] * 10_001), "more than 10,000 blobs"),
    "two layers of one name": (layer("a", [blob(TWO)]) * 2, "two layers in it are called .a."),
}


@pytest.mark.parametrize("content, says", REFUSED.values(), ids=REFUSED)
def test_what_is_no_caffemodel_is_refused_in_one_line(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.caffemodel").write_bytes(content)
    with pytest.raises(ConfigurationError, match=says) as refused:
        read_weights(tmp_path / "a.caffemodel")
    assert "a.caffemodel" in str(refused.value)
    assert len(str(refused.value)) < 400
    assert "\n" not in str(refused.value)


def flipped(content: bytes, draw: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(draw.choice([1, 1, 4, 16])):
        damaged[draw.randrange(len(damaged))] = draw.choice([0, 1, 127, 128, 255, draw.randrange(256)])
    return bytes(damaged)


def cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


def without_a_piece(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + content[at + draw.randrange(1, 40) :]


def with_a_piece_more(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + draw.randbytes(draw.randrange(1, 12)) + content[at:]


@pytest.mark.parametrize("damage", [flipped, cut, without_a_piece, with_a_piece_more])
def test_fifty_damages_of_each_kind_end_in_one_line_or_in_weights(
    damage: Callable[[bytes, random.Random], bytes], tmp_path: Path
) -> None:
    """No other exception, and never more memory than a gigabyte: the whole process may take that much more, no more."""
    draw = random.Random(3)
    whole = {write: caffemodel(SMALL, write) for write in WRITERS}
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[0])
    refused = 0
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 30), before[1]))
    try:
        for count in range(50):
            (tmp_path / "a.caffemodel").write_bytes(damage(whole[list(whole)[count % len(whole)]], draw))
            try:
                found, _ = read_weights(tmp_path / "a.caffemodel")
            except ConfigurationError:
                refused += 1
            else:
                assert sum(tensor.numel() for tensor in found.values()) <= 14
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert refused > 10
