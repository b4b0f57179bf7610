"""Reads a pack's `manifest.json` into frozen dataclasses, with every check that needs no other file."""

import dataclasses
import io
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from alexnet_mp.common.disk import regular
from alexnet_mp.common.schema import Bound, PositiveInt, from_mapping
from alexnet_mp.errors import ConfigurationError, explained

FORMAT = "alexnet_mp pack"
FORMAT_VERSION = 3
READABLE_VERSIONS = (2, 3)  # version 2 is the same without `codec`, `quality` and `lengths`: raw pixels
MANIFEST = "manifest.json"
Codec = Literal["raw", "jpeg"]

SPLITS = ("train", "validation", "test")
LARGEST_SIZE = 1 << 14  # pixels; the sums of a shard would overflow far above it

# One folder at most, no dots at the beginning: a name that fits cannot leave the pack's folder.
_FILE_NAME = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """A file, relative to the pack's folder, and the SHA-256 of all its bytes in hexadecimal."""

    file: str
    sha256: str


@dataclass(frozen=True)
class ShardEntry:
    """A file of `count` images: uint8 [count, size, size, 3], or with `codec` jpeg one JPEG file after the other."""

    file: str
    count: PositiveInt
    sha256: str


@dataclass(frozen=True)
class SplitEntry:
    """`count` images in shards, in this order, and their labels, int64 [count].

    With `codec` jpeg there are `lengths` too, int64 [count]: the bytes of every image.
    """

    count: PositiveInt
    labels: FileEntry
    shards: tuple[ShardEntry, ...]
    lengths: FileEntry | None = None


Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Color:
    """The covariance of RGB over all pixels of the training split, on the 0..255 scale (paper §4.1).

    `eigenvalues` are in descending order; column i of `eigenvectors` (its rows are R, G, B) belongs to eigenvalue i.
    """

    eigenvalues: Vector
    eigenvectors: tuple[Vector, Vector, Vector]


@dataclass(frozen=True)
class Skipped:
    """A picture of the source that is not in the pack, and why."""

    split: str
    name: str
    reason: str


@dataclass(frozen=True)
class Repeated:
    """Pictures of the same bytes that are in two splits or under two labels, all of them in the pack; `why` says so."""

    names: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Manifest:
    """All of `manifest.json`; `settings` are those of the preparation, for people to read.

    `class_words` says in words what a class is, by its name in `class_names`, as far as the source says it.
    `quality`, from 1 to 100, is the one that `codec` jpeg was written with, by the scale of libjpeg.
    """

    format: str
    format_version: int
    size: Annotated[int, Bound(f"be from 1 to {LARGEST_SIZE}", lambda value: 1 <= value <= LARGEST_SIZE)]
    class_names: tuple[str, ...]
    splits: dict[str, SplitEntry]
    mean_image: FileEntry
    color: Color
    skipped: tuple[Skipped, ...]
    settings: dict[str, Any]
    class_words: dict[str, str] = field(default_factory=dict)
    repeated: tuple[Repeated, ...] = ()
    codec: Codec = "raw"
    quality: Annotated[int, Bound("be from 1 to 100", lambda value: 1 <= value <= 100)] | None = None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Read and check a pack's manifest.

    Raises ConfigurationError that names the file if there is none (a pack that is not finished has none), if it
    is not JSON, is of another format or version, lacks a key or has one too many, or contradicts itself.
    """
    path = folder / MANIFEST
    with explained(f"cannot read {path}"):
        if not path.exists():
            raise ConfigurationError(
                f"{path} does not exist, so {folder} is not a pack, or one whose preparation has not finished; "
                f"python launch/prepare.py source=... out={folder} makes it"
            )
        content = regular(path).read_bytes()
    with explained(str(path), ConfigurationError):
        return parse_manifest(content)


def parse_manifest(content: bytes) -> Manifest:
    """The manifest in a JSON text. Raises ConfigurationError, which does not name the file."""
    with explained("it is not JSON", ValueError, RecursionError):
        mapping = json.loads(content)
    if not isinstance(mapping, Mapping) or mapping.get("format") != FORMAT:
        raise ConfigurationError(f"it is not the manifest of a pack: its format is not {FORMAT!r}")
    version = mapping.get("format_version")
    if version not in READABLE_VERSIONS:
        versions = " and ".join(map(str, READABLE_VERSIONS))
        raise ConfigurationError(
            f"it has format_version {version!r} and this version reads {versions}; prepare it again"
        )
    with explained("a number or a nesting is too large", OverflowError, RecursionError):
        manifest = from_mapping(Manifest, mapping, "")
    problem = next(_problems(manifest), None)
    if problem:
        raise ConfigurationError(problem)
    return manifest


def _problems(manifest: Manifest) -> Iterator[str]:
    names = manifest.class_names
    if not names or len(set(names)) != len(names):
        yield "class_names must be one name or more, each of them once"
    if "train" not in manifest.splits or not set(manifest.splits) <= set(SPLITS):
        yield f"splits are {', '.join(manifest.splits) or 'none'}; a pack has train, and may have validation and test"
    for name, split in manifest.splits.items():
        held = sum(shard.count for shard in split.shards)
        if held != split.count:
            yield f"splits.{name}.count is {split.count}, and its shards have {held} images"
        if (split.lengths is None) == (manifest.codec == "jpeg"):
            yield f"codec is {manifest.codec}, and splits.{name} {'lacks' if split.lengths is None else 'has'} lengths"
    if (manifest.quality is None) == (manifest.codec == "jpeg"):
        yield f"codec is {manifest.codec}, and quality is {manifest.quality}"
    yield from _problems_of_files(manifest)
    yield from _problems_of_color(manifest.color)


def _problems_of_files(manifest: Manifest) -> Iterator[str]:
    entries: list[FileEntry | ShardEntry] = [manifest.mean_image]
    for split in manifest.splits.values():
        entries += [split.labels, *split.shards, *([] if split.lengths is None else [split.lengths])]
    seen = {MANIFEST}
    for entry in entries:
        if not _FILE_NAME.fullmatch(entry.file):
            yield f"{entry.file!r} is not the name of a file of a pack: letters, digits, _ - . and one folder at most"
        if entry.file in seen:
            yield f"{entry.file!r} is named twice"
        if not _SHA256.fullmatch(entry.sha256):
            yield f"the sha256 of {entry.file!r} is not 64 hexadecimal digits: {entry.sha256!r}"
        seen.add(entry.file)


def _problems_of_color(color: Color) -> Iterator[str]:
    values, rows = color.eigenvalues, color.eigenvectors
    if not all(math.isfinite(number) for row in (values, *rows) for number in row):
        yield "color has a number that is not finite"
        return
    if not values[0] >= values[1] >= values[2] >= 0:
        yield f"color.eigenvalues are {values}, not three numbers from 0 up in descending order"
    for i, j in itertools.product(range(3), repeat=2):
        if abs(sum(row[i] * row[j] for row in rows) - (i == j)) > 1e-6:
            yield f"color.eigenvectors are not orthonormal in columns {i} and {j}"


UINT8, UINT32, INT64, FLOAT64 = "|u1", "<u4", "<i8", "<f8"


def npy_header(kind: str, shape: tuple[int, ...]) -> bytes:
    """The header of a format 1.0 `.npy` file of this type and shape, in C order, as `numpy.save` writes it."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": shape})
    return header.getvalue()


def npy_bytes(kind: str, shape: tuple[int, ...]) -> int:
    """The length of such a file."""
    return len(npy_header(kind, shape)) + math.prod(shape) * np.dtype(kind).itemsize
