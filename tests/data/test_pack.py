"""A pack opens only whole and unchanged, gives the images asked for, and answers damage with its own error."""

import json
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_mp import ConfigurationError
from alexnet_mp.data import pack as pack_module
from alexnet_mp.data.pack import open_pack
from tests.support.packs import LABELS, SIZE, entry, pixels, write_manifest


def test_a_pack_opens_with_what_its_manifest_says(folder: Path) -> None:
    pack = open_pack(folder)
    assert (pack.folder, pack.size, pack.class_names) == (folder, SIZE, ("cat", "dog", "owl"))
    assert {name: len(split) for name, split in pack.splits.items()} == {"train": 8, "validation": 2}
    assert {name: split.labels.tolist() for name, split in pack.splits.items()} == LABELS
    assert pack.splits["train"].labels.dtype == np.int64
    assert pack.splits["train"].image_shape == (SIZE, SIZE, 3)
    assert pack.statistics.eigenvalues.tolist() == [3, 2, 1]
    assert pack.statistics.eigenvectors[:, 0].tolist() == [0, 1, 0]
    np.testing.assert_array_equal(pack.statistics.mean_image, pixels("train").mean(axis=0))


@pytest.mark.parametrize(
    "rows",
    [[0], [7], list(range(8)), [7, 6, 5, 4, 3, 2, 1, 0], [3, 3, 0, 3], [2, 3], [6, 0, 4, 5, 7], []],
    ids=str,
)
def test_any_rows_in_any_order_are_read(folder: Path, rows: list[int]) -> None:
    out = np.zeros((len(rows), SIZE, SIZE, 3), dtype=np.uint8)
    open_pack(folder).splits["train"].read(np.array(rows, dtype=np.int64), out)
    np.testing.assert_array_equal(out, pixels("train")[rows])


def test_threads_read_at_the_same_time_with_one_open_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_module, "OPEN_FILES", 1)
    split = open_pack(folder).splits["train"]
    expected = pixels("train")

    def read(seed: int) -> bool:
        rows = np.random.default_rng(seed).permutation(8)
        out = np.empty((8, SIZE, SIZE, 3), dtype=np.uint8)
        split.read(rows, out)
        split.forget(rows)
        return bool((out == expected[rows]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(400)))


def test_files_are_closed_when_a_pack_goes(folder: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        open_pack(folder).splits["train"].read(np.arange(8), np.empty((8, SIZE, SIZE, 3), dtype=np.uint8))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("rows", [[-1], [8], [0, 100]])
def test_a_row_that_is_not_there_is_an_index_error(folder: Path, rows: list[int]) -> None:
    with pytest.raises(IndexError, match="8 images"):
        open_pack(folder).splits["train"].read(np.array(rows), np.empty((len(rows), SIZE, SIZE, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "shape, kind", [((1, SIZE, SIZE, 3), "u1"), ((2, SIZE, SIZE), "u1"), ((2, SIZE, SIZE, 3), "f4")]
)
def test_an_out_that_does_not_fit_is_a_value_error(folder: Path, shape: tuple[int, ...], kind: str) -> None:
    with pytest.raises(ValueError, match="it must be uint8"):
        open_pack(folder).splits["train"].read(np.array([0, 1]), np.empty(shape, dtype=kind))


def test_a_shard_cut_short_after_opening_is_named(folder: Path) -> None:
    split = open_pack(folder).splits["train"]
    os.truncate(folder / "train/00002.npy", 128 + 2 * SIZE * SIZE * 3)
    out = np.empty((4, SIZE, SIZE, 3), dtype=np.uint8)
    with pytest.raises(ConfigurationError, match=r"train/00002\.npy has become shorter"):
        split.read(np.array([4, 5, 6, 7]), out)
    split.read(np.array([4, 5]), out[:2])
    np.testing.assert_array_equal(out[:2], pixels("train")[4:6])


def test_without_verify_only_the_shards_checksums_are_left_out(folder: Path) -> None:
    shard = folder / "train/00001.npy"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    open_pack(folder, verify=False)
    with pytest.raises(ConfigurationError, match=r"train/00001\.npy is damaged"):
        open_pack(folder)


def edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes())) and None


def replace(name: str, array: np.ndarray[Any, Any]) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / name, array)


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def relabel(labels: list[int]) -> Callable[[Path], None]:
    """Labels that the manifest knows, checksum and all."""

    def change(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["splits"]["train"]["labels"] = entry(folder, "train/labels.npy", np.array(labels))
        write_manifest(folder, manifest)

    return change


def become_a_fifo(folder: Path) -> None:
    (folder / "train/00000.npy").unlink()
    os.mkfifo(folder / "train/00000.npy")


IMAGES = pixels("train")[:3]
DAMAGED_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no_manifest": (remove("manifest.json"), r"manifest\.json does not exist.*not finished"),
    "manifest_empty": (edit("manifest.json", lambda b: b""), "manifest.json: it is not JSON"),
    "manifest_cut_short": (edit("manifest.json", lambda b: b[: len(b) // 2]), "manifest.json: it is not JSON"),
    "manifest_not_utf8": (edit("manifest.json", lambda b: b"\xff\xfe\xfd" + b), "manifest.json: it is not JSON"),
    "manifest_nested_too_deep": (edit("manifest.json", lambda b: b"[" * 100_000), "manifest.json: it is not JSON"),
    "shard_missing": (remove("train/00001.npy"), r"train/00001\.npy is missing"),
    "shard_empty": (edit("train/00000.npy", lambda b: b""), r"train/00000\.npy has 0 bytes"),
    "shard_one_byte_short": (edit("train/00000.npy", lambda b: b[:-1]), r"train/00000\.npy has 271 bytes.* 272"),
    "shard_one_byte_long": (edit("train/00000.npy", lambda b: b + b"x"), r"train/00000\.npy has 273 bytes"),
    "shard_of_another_format": (
        edit("train/00000.npy", lambda b: b.replace(b"NUMPY\x01", b"NUMPY\x02")),
        r"train/00000\.npy does not begin as",
    ),
    "shard_in_fortran_order": (replace("train/00000.npy", np.asfortranarray(IMAGES)), r"00000\.npy does not begin as"),
    "shard_of_int8": (replace("train/00000.npy", IMAGES.view(np.int8)), r"00000\.npy does not begin as"),
    "shard_of_another_shape": (replace("train/00000.npy", IMAGES.reshape(3, 2, 8, 3)), r"00000\.npy does not begin as"),
    "shard_of_objects": (
        replace("train/00000.npy", np.array([None] * 18, dtype=object)),
        r"train/00000\.npy (has|does not)",
    ),
    "shard_with_a_changed_pixel": (
        edit("train/00000.npy", lambda b: b[:200] + bytes([b[200] ^ 4]) + b[201:]),
        r"train/00000\.npy is damaged: its SHA-256",
    ),
    "shard_is_a_fifo": (become_a_fifo, r"train/00000\.npy is not a file"),
    "labels_missing": (remove("train/labels.npy"), r"train/labels\.npy is missing"),
    "labels_changed": (edit("train/labels.npy", lambda b: b[:-8] + b"\2" + b[-7:]), r"train/labels\.npy is damaged"),
    "labels_one_too_few": (relabel(LABELS["train"][:-1]), r"train/labels\.npy has"),
    "label_too_large": (relabel([*LABELS["train"][:-1], 3]), r"labels\.npy has labels from 0 to 3.*3 classes"),
    "label_negative": (relabel([-1, *LABELS["train"][1:]]), r"labels\.npy has labels from -1"),
    "mean_missing": (remove("mean_image.npy"), r"mean_image\.npy is missing"),
    "mean_changed": (edit("mean_image.npy", lambda b: b[:-1] + b"\x7f"), r"mean_image\.npy is damaged"),
    "mean_in_float32": (replace("mean_image.npy", IMAGES[0].astype("f4")), r"mean_image\.npy has"),
}


@pytest.mark.parametrize("damage, message", DAMAGED_FILES.values(), ids=DAMAGED_FILES)
def test_a_damaged_file_of_a_pack_is_named(damage: Callable[[Path], None], message: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(ConfigurationError, match=message):
        open_pack(folder)


def test_a_folder_that_is_not_there_is_no_pack(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(str(tmp_path / "nowhere" / "manifest.json"))):
        open_pack(tmp_path / "nowhere")
