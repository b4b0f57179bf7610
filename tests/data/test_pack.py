"""A pack opens only whole and unchanged, gives the images asked for, and answers damage with its own error."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alexnet_mp import ConfigurationError
from alexnet_mp.data import pack as pack_module
from alexnet_mp.data.manifest import parse_manifest
from alexnet_mp.data.pack import open_pack

SIZE = 4
SHARDS = {"train": (3, 1, 4), "validation": (2,)}
LABELS = {"train": [0, 1, 2, 2, 1, 0, 0, 1], "validation": [2, 0]}
Manifest = dict[str, Any]


def entry(folder: Path, name: str, array: np.ndarray[Any, Any], **more: int) -> dict[str, Any]:
    """Write an array as NumPy does and describe it as a manifest does."""
    (folder / name).parent.mkdir(exist_ok=True)
    np.save(folder / name, array)
    return {"file": name, **more, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}


def pixels(split: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The images of a split, all different: [count, SIZE, SIZE, 3]."""
    rng = np.random.default_rng(len(split))
    return rng.integers(0, 256, (sum(SHARDS[split]), SIZE, SIZE, 3), dtype=np.uint8)


def write_pack(folder: Path) -> Manifest:
    """A pack that owes nothing to the code under test."""
    splits = {}
    for split, counts in SHARDS.items():
        parts = np.split(pixels(split), np.cumsum(counts)[:-1])
        splits[split] = {
            "count": sum(counts),
            "labels": entry(folder, f"{split}/labels.npy", np.array(LABELS[split], dtype=np.int64)),
            "shards": [entry(folder, f"{split}/{i:05d}.npy", p, count=len(p)) for i, p in enumerate(parts)],
        }
    manifest = {
        "format": "alexnet_mp pack",
        "format_version": 2,
        "size": SIZE,
        "class_names": ["cat", "dog", "owl"],
        "splits": splits,
        "mean_image": entry(folder, "mean_image.npy", pixels("train").mean(axis=0)),
        "color": {"eigenvalues": [3.0, 2.0, 1], "eigenvectors": [[0, 1, 0], [1, 0, 0], [0, 0, 1]]},
        "skipped": [{"split": "train", "name": "train/cat/x.jpg", "reason": "an empty file"}],
        "settings": {"seed": 0, "anything": [None, {"deep": True}]},
    }
    write_manifest(folder, manifest)
    return manifest


def write_manifest(folder: Path, manifest: object) -> None:
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pack(tmp_path)
    return tmp_path


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


def put(value: object, *path: str | int) -> Callable[[Manifest], None]:
    def change(manifest: Manifest) -> None:
        place: Any = manifest
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


TRAIN = ("splits", "train")
EDITED_MANIFESTS: dict[str, tuple[Callable[[Manifest], None], str]] = {
    "another_format": (put("a pack", "format"), "not the manifest of a pack"),
    "a_later_version": (put(3, "format_version"), "format_version 3 and this version reads 2"),
    "version_true": (put(True, "format_version"), "format_version"),
    "size_zero": (put(0, "size"), "size is 0"),
    "size_huge": (put(10**30, "size"), "size is 1000"),
    "size_text": (put("4", "size"), "size must be a whole number"),
    "another_size": (put(5, "size"), r"mean_image\.npy has"),
    "no_classes": (put([], "class_names"), "class_names"),
    "class_twice": (put(["cat", "cat", "owl"], "class_names"), "class_names"),
    "fewer_classes": (put(["cat", "dog"], "class_names"), r"labels\.npy has labels from 0 to 2"),
    "unknown_key": (put(1, "colors"), "unknown key 'colors'"),
    "unknown_key_inside": (put(1, *TRAIN, "size"), r"unknown key 'splits\.train\.size'"),
    "missing_key": (lambda manifest: manifest.pop("color"), "missing key 'color'"),
    "unknown_split": (lambda m: m["splits"].update(extra=m["splits"].pop("validation")), "splits are"),
    "no_train": (lambda m: m["splits"].pop("train"), "splits are validation"),
    "count_too_large": (put(9, *TRAIN, "count"), r"train\.count is 9, and its shards have 8"),
    "shard_count_negative": (put(-3, *TRAIN, "shards", 0, "count"), r"count is -3, must be positive"),
    "shard_counts_moved": (
        lambda m: [put(4, *TRAIN, "shards", 0, "count")(m), put(3, *TRAIN, "shards", 2, "count")(m)],
        r"train/00000\.npy has",
    ),
    "shard_above_the_folder": (put("../x.npy", *TRAIN, "shards", 0, "file"), r"'\.\./x\.npy' is not the name"),
    "shard_absolute": (put("/etc/passwd", *TRAIN, "shards", 0, "file"), "'/etc/passwd' is not the name"),
    "shard_name_with_nul": (put("train/\0.npy", *TRAIN, "shards", 0, "file"), "is not the name"),
    "shard_name_with_newline": (put("train/0\n", *TRAIN, "shards", 0, "file"), "is not the name"),
    "shard_name_surrogate": (put("train/\ud800", *TRAIN, "shards", 0, "file"), "is not the name"),
    "shard_twice": (put("train/00001.npy", *TRAIN, "shards", 0, "file"), "named twice"),
    "labels_named_as_the_mean": (put("mean_image.npy", *TRAIN, "labels", "file"), "named twice"),
    "checksum_cut": (put("ab", *TRAIN, "shards", 0, "sha256"), "not 64 hexadecimal digits"),
    "checksum_wrong": (put("0" * 64, *TRAIN, "shards", 0, "sha256"), r"train/00000\.npy is damaged"),
    "eigenvalue_not_finite": (put(float("inf"), "color", "eigenvalues", 0), "not finite"),
    "eigenvalues_ascending": (put([1, 2, 3], "color", "eigenvalues"), "descending"),
    "eigenvalue_negative": (put(-1, "color", "eigenvalues", 2), "from 0 up"),
    "eigenvectors_not_orthonormal": (put(2, "color", "eigenvectors", 0, 1), "orthonormal"),
    "eigenvectors_two": (put([[1, 0], [0, 1]], "color", "eigenvectors"), "needs 3 values"),
    "eigenvalue_of_400_digits": (put(10**400, "color", "eigenvalues", 0), "too large"),
    "settings_a_list": (put([], "settings"), "settings must be a mapping"),
    "settings_missing": (lambda manifest: manifest.pop("settings"), "missing key 'settings'"),
    "skipped_a_name": (put(["x.jpg"], "skipped"), r"skipped\[0\] must be a mapping"),
}


@pytest.mark.parametrize("change, message", EDITED_MANIFESTS.values(), ids=EDITED_MANIFESTS)
def test_an_edited_manifest_is_refused(change: Callable[[Manifest], None], message: str, tmp_path: Path) -> None:
    manifest = write_pack(tmp_path)
    change(manifest)
    write_manifest(tmp_path, manifest)
    with pytest.raises(ConfigurationError, match=message) as caught:
        open_pack(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_no_pack(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(str(tmp_path / "nowhere" / "manifest.json"))):
        open_pack(tmp_path / "nowhere")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
QUICK = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The paths of all values in a manifest."""
    inside: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    return [p for key, inner in inside for p in [(*path, key), *places(inner, (*path, key))]]


@QUICK
@given(JSON | st.dictionaries(st.sampled_from(["format", "size", "splits", "settings"]), JSON))
def test_no_json_makes_the_manifest_parser_raise_anything_else(value: object) -> None:
    with pytest.raises(ConfigurationError):
        parse_manifest(json.dumps(value).encode())


@QUICK
@given(st.binary(max_size=200))
def test_no_bytes_make_the_manifest_parser_raise_anything_else(content: bytes) -> None:
    with pytest.raises(ConfigurationError):
        parse_manifest(content)


@settings(QUICK, max_examples=100)
@given(data=st.data())
def test_no_edited_manifest_makes_the_reader_raise_anything_else(folder: Path, data: st.DataObject) -> None:
    manifest = write_pack(folder)
    for place in data.draw(st.lists(st.sampled_from(places(manifest)), min_size=1, max_size=3), "places"):
        try:
            put(data.draw(JSON, "value"), *place)(manifest)
        except (KeyError, IndexError, TypeError):  # an earlier change took this place away
            continue
    write_manifest(folder, manifest)
    try:
        pack = open_pack(folder)
    except ConfigurationError as error:
        assert "manifest.json" in str(error) or ".npy" in str(error)
        return
    for split in pack.splits.values():
        out = np.empty((len(split), SIZE, SIZE, 3), dtype=np.uint8)
        split.read(np.arange(len(split)), out)
