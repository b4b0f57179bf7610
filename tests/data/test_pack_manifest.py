"""A manifest of a pack that was edited is refused in one line, whatever it says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alexnet_mp import ConfigurationError
from alexnet_mp.data.manifest import parse_manifest
from alexnet_mp.data.pack import open_pack
from tests.support.packs import SIZE, Manifest, write_manifest, write_pack


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
    "a_later_version": (put(4, "format_version"), "format_version 4 and this version reads 2 and 3"),
    "a_fraction_of_a_version": (put(2.5, "format_version"), "format_version 2.5"),
    "codec_unknown": (put("png", "codec"), "codec is 'png', not one of raw, jpeg"),
    "codec_without_lengths": (
        lambda m: [put("jpeg", "codec")(m), put(90, "quality")(m)],
        r"codec is jpeg, and splits\.train lacks lengths",
    ),
    "lengths_without_a_codec": (put({"file": "x.npy", "sha256": "0" * 64}, *TRAIN, "lengths"), "train has lengths"),
    "quality_without_a_codec": (put(90, "quality"), "codec is raw, and quality is 90"),
    "quality_zero": (put(0, "quality"), "quality is 0, must be from 1 to 100"),
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
