"""A pack of JPEGs is the raw pack of the pixels that they are decoded to; damage in it is named."""

import hashlib
import io
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from alexnet_mp import ConfigurationError
from alexnet_mp.data.jpeg import decode_jpeg, encode_jpeg
from alexnet_mp.data.pack import JpegSplit, PackSplit, open_pack
from tests.support.packs import write_manifest, write_pack
from tests.support.photographs import class_folders
from tests.support.preparation import fingerprint, prepared
from tests.support.short_runs import losses

SIZE = 20


def all_images(split: PackSplit) -> NDArray[np.uint8]:
    out = np.empty((len(split), *split.image_shape), dtype=np.uint8)
    split.read(np.arange(len(split)), out)
    return out


@pytest.fixture
def jpegs(photos: Path, out: Path) -> Path:
    """A pack of JPEGs of small random pictures, several shards a split."""
    prepared(photos, out, size=SIZE, codec="jpeg", images_per_shard=5)
    return out


@pytest.fixture
def decoded(photos: Path, tmp_path: Path) -> Path:
    """The same pictures, of the size of the pack, as PNGs of what Pillow itself decodes from a JPEG of each."""
    for path in sorted(photos.rglob("*.png")):
        picture = Image.open(path).resize((24, 20)).crop((2, 0, 22, 20))  # their sides are 24 and 20 already
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=90)
        target = tmp_path / "decoded" / path.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).save(target)
    return tmp_path / "decoded"


def test_it_is_the_raw_pack_of_its_decoded_pixels(jpegs: Path, decoded: Path, tmp_path: Path) -> None:
    prepared(decoded, tmp_path / "raw", size=SIZE, images_per_shard=5)
    one, two = open_pack(jpegs), open_pack(tmp_path / "raw")
    assert (one.manifest.codec, one.manifest.quality, two.manifest.codec, two.manifest.quality) == (
        "jpeg",
        90,
        "raw",
        None,
    )
    for name, array in vars(one.statistics).items():
        np.testing.assert_array_equal(array, getattr(two.statistics, name), strict=True)
    for name, split in one.splits.items():
        assert isinstance(split, JpegSplit)
        np.testing.assert_array_equal(split.labels, two.splits[name].labels)
        np.testing.assert_array_equal(all_images(split), all_images(two.splits[name]))


def test_losses_of_twelve_steps_are_those_on_the_raw_pack_of_its_pixels(
    jpegs: Path, decoded: Path, tmp_path: Path, one_thread: None
) -> None:
    prepared(decoded, tmp_path / "raw", size=SIZE)
    from_raw = losses(tmp_path / "one", "data=pack", f"data.path={tmp_path / 'raw'}")
    assert losses(tmp_path / "two", "data=pack", f"data.path={jpegs}") == from_raw


def test_it_has_shards_of_jpeg_files_one_after_the_other_and_their_lengths(jpegs: Path) -> None:
    shards = {"train": 3, "validation": 1, "test": 1}
    expected = {f"{split}/{i:05d}.jpegs" for split, count in shards.items() for i in range(count)}
    expected |= {f"{split}/{name}.npy" for split in shards for name in ("labels", "lengths")}
    assert fingerprint(jpegs).keys() == expected | {"mean_image.npy", "manifest.json"}
    lengths = np.load(jpegs / "train" / "lengths.npy", allow_pickle=False)
    content = b"".join((jpegs / f"train/{i:05d}.jpegs").read_bytes() for i in range(3))
    assert (len(lengths), lengths.sum()) == (12, len(content))
    files = [content[end - length : end] for end, length in zip(np.cumsum(lengths), lengths, strict=True)]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])
    np.testing.assert_array_equal(all_images(open_pack(jpegs).splits["train"]), pixels)


def test_it_is_the_same_in_one_start_and_in_two_and_without_a_damaged_picture(photos: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    (photos / "train" / "cat" / "bad.png").write_bytes(b"x")
    with pytest.raises(ConfigurationError, match=r"bad\.png"):
        prepared(photos, again, size=SIZE, codec="jpeg", images_per_shard=5, strict=True)
    assert list((again / "train").glob("*.jpegs"))  # begun
    prepared(photos, again, size=SIZE, codec="jpeg", images_per_shard=5)
    alone = tmp_path / "alone"
    summary = prepared(photos, alone, size=SIZE, codec="jpeg", images_per_shard=5)
    assert [skipped.name for skipped in summary.manifest.skipped] == ["train/cat/bad.png"]
    assert fingerprint(again) == fingerprint(alone)
    assert len(open_pack(again).splits["train"]) == 12


def test_another_codec_or_quality_does_not_go_on_with_what_is_begun(photos: Path, out: Path) -> None:
    (photos / "train" / "cat" / "bad.png").write_bytes(b"x")
    with pytest.raises(ConfigurationError, match=r"bad\.png"):
        prepared(photos, out, size=SIZE, strict=True)
    with pytest.raises(ConfigurationError, match=r"codec 'raw' -> 'jpeg', quality None -> 90"):
        prepared(photos, out, size=SIZE, codec="jpeg")


@pytest.mark.parametrize("rows", [[0], [11, 0, 5, 5, 4], list(range(12)), []], ids=str)
def test_any_rows_in_any_order_are_read_by_threads_at_once(jpegs: Path, rows: list[int]) -> None:
    split = open_pack(jpegs).splits["train"]
    expected = all_images(split)[rows]

    def read(_: int) -> bool:
        out = np.zeros((len(rows), SIZE, SIZE, 3), dtype=np.uint8)
        split.read(np.array(rows, dtype=np.int64), out)
        split.forget(np.array(rows, dtype=np.int64))
        return bool((out == expected).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(20)))
    with pytest.raises(IndexError, match="12 images"):
        split.read(np.array([12]), np.empty((1, SIZE, SIZE, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="it must be uint8"):
        split.read(np.array([1]), np.empty((1, SIZE, SIZE), dtype=np.uint8))


def replace(file: Path, content: bytes) -> None:
    """Change a file and its checksum in the manifest."""
    manifest = json.loads((file.parent.parent / "manifest.json").read_text())
    entry = next(
        each
        for split in manifest["splits"].values()
        for each in (split["lengths"], *split["shards"])
        if file.match(each["file"])
    )
    file.write_bytes(content)
    entry["sha256"] = hashlib.sha256(content).hexdigest()
    write_manifest(file.parent.parent, manifest)


def test_damage_is_named(jpegs: Path) -> None:
    shard, lengths = jpegs / "train" / "00001.jpegs", jpegs / "train" / "lengths.npy"
    content, numbers = shard.read_bytes(), lengths.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(ConfigurationError, match=r"train/00001\.jpegs has [\d,]+ bytes; by the manifest it has"):
        open_pack(jpegs)
    shard.write_bytes(content[:-9] + b"x" + content[-8:])
    with pytest.raises(ConfigurationError, match=r"train/00001\.jpegs is damaged: its SHA-256"):
        open_pack(jpegs)
    shard.unlink()
    with pytest.raises(ConfigurationError, match=r"train/00001\.jpegs is missing"):
        open_pack(jpegs)
    shard.write_bytes(content)
    replace(lengths, numbers[:-8] + np.array([-3], dtype="<i8").tobytes())
    with pytest.raises(ConfigurationError, match=r"lengths\.npy has a length of -3"):
        open_pack(jpegs)
    replace(lengths, numbers[:-8] + np.array([30], dtype="<i8").tobytes())
    with pytest.raises(ConfigurationError, match=r"train/00002\.jpegs has"):
        open_pack(jpegs)


@pytest.mark.parametrize("damage", ["bytes", "another_size", "gray", "png"])
def test_an_image_that_is_not_one_of_the_pack_is_named_when_it_is_read(damage: str, jpegs: Path) -> None:
    pixels = np.zeros((SIZE + (damage == "another_size"), SIZE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert("L" if damage == "gray" else "RGB").save(file, "PNG" if damage == "png" else "JPEG")
    length = int(np.load(jpegs / "train" / "lengths.npy", allow_pickle=False)[5])  # of the shard's first image
    shard = jpegs / "train" / "00001.jpegs"
    content = shard.read_bytes()
    first = b"\xff\xd8" + b"x" * length if damage == "bytes" else file.getvalue()
    shard.write_bytes(first[:length].ljust(length, b"\0") + content[length:])
    split = open_pack(jpegs, verify=False).splits["train"]
    out = np.empty((1, SIZE, SIZE, 3), dtype=np.uint8)
    with pytest.raises(ConfigurationError, match=r"train/00001\.jpegs is damaged: image 5 of the split: \S"):
        split.read(np.array([5]), out)
    split.read(np.array([6]), out)
    os.truncate(shard, 100)
    with pytest.raises(ConfigurationError, match=r"train/00001\.jpegs has become shorter"):
        split.read(np.array([6]), out)


def test_packs_of_the_format_before_are_still_read(tmp_path: Path) -> None:
    manifest = write_pack(tmp_path)
    assert (manifest["format_version"], "codec" in manifest) == (2, False)
    assert open_pack(tmp_path).manifest.codec == "raw"


def test_real_photographs_lose_little_and_take_a_fraction(tmp_path: Path) -> None:
    class_folders(tmp_path / "photos", of_each_class=1)
    packs = []
    for codec in ("raw", "jpeg"):
        prepared(tmp_path / "photos", tmp_path / codec, codec=codec)
        packs.append(open_pack(tmp_path / codec).splits["train"])
    raw, jpeg = (all_images(split).astype(int) for split in packs)
    assert np.abs(raw - jpeg).mean() < 3  # gray levels
    assert packs[1].stored_bytes < packs[0].stored_bytes / 5


def test_what_a_split_holds_does_not_grow_with_its_pixels(tmp_path: Path) -> None:
    held = []
    for count in (1_000, 20_000):
        split = JpegSplit(np.zeros(count, np.int64), [(tmp_path / "x", count)], 256, np.full(count, 20_000, np.int64))
        held.append(sum(value.nbytes for value in vars(split).values() if isinstance(value, np.ndarray)))
        assert split.stored_bytes == 20_000 * count
    assert held[1] - held[0] == 19_000 * 3 * 8  # labels, lengths and offsets


def test_encoding_is_pillows_and_decoding_its_inverse() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    out = np.empty_like(pixels)
    decode_jpeg(encode_jpeg(pixels, 90), out)
    np.testing.assert_array_equal(out, np.asarray(Image.open(io.BytesIO(encode_jpeg(pixels, 90)))))
    with pytest.raises(ValueError, match=re.escape("it is 16x16 in RGB")):
        decode_jpeg(encode_jpeg(pixels, 90), np.empty((8, 8, 3), dtype=np.uint8))
