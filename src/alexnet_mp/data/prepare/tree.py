"""Finds the files of a source, in a folder, a zip, a tar or a .tar.gz, by their names and by where their bytes lie."""

import gzip
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tqdm import tqdm

from alexnet_mp.data.prepare.listing import IMAGE_SUFFIXES, SPLIT_NAMES, Extent, Picture, check_leads_inside, inflate
from alexnet_mp.data.prepare.tar import index_tar
from alexnet_mp.errors import ConfigurationError, explained

LARGEST_TEXT = 1 << 26  # bytes of a list of labels or names
LARGEST_INFLATED = 1 << 28  # bytes of a member of a zip file
LARGEST_RATIO = 100  # of a .tar.gz; pictures are compressed already
TARS = (".tar", ".tar.gz", ".tgz")

# Files that systems and file servers leave beside pictures, and hidden ones.
SIDE = re.compile(r"(^|/)(\.[^/]+|@eadir|__macosx|thumbs\.db|desktop\.ini)(/|$)", re.IGNORECASE)
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip file's member: signature, lengths of its name and extra field


@dataclass(frozen=True)
class Tree:
    """The files and folders of the source `path`; names are relative to the folder that holds all of them.

    `special` has the names that are no regular files, such as links to nowhere.
    """

    path: Path
    files: dict[str, Extent]
    folders: frozenset[str]
    special: tuple[str, ...]

    def under(self, folder: str) -> Iterator[str]:
        """The names of all files under a folder, however deep."""
        return (name for name in self.files if not folder or name.startswith(f"{folder}/"))

    def subfolders(self, folder: str) -> set[str]:
        """The last names of the folders in a folder."""
        return {name.rpartition("/")[2] for name in self.folders if name.rpartition("/")[0] == folder}

    def find(self, *last_names: str) -> str | None:
        """The name of the file, not a picture, with the first of these last names that is there; the least deep one."""
        found = next((self._others[last] for last in last_names if last in self._others), [])
        return min(found, key=lambda name: (name.count("/"), name), default=None)

    @cached_property
    def _others(self) -> dict[str, list[str]]:
        """The names of files that are not pictures, by their last names."""
        names: dict[str, list[str]] = {}
        for name in self.files:
            if name.rpartition(".")[2].lower() not in IMAGE_SUFFIXES:
                names.setdefault(name.rpartition("/")[2], []).append(name)
        return names

    def path_of(self, last_name: str) -> Path | None:
        """The path of a file with this last name; None if there is none, or it lies in an archive."""
        name = self.find(last_name) if self.path.is_dir() else None
        return Path(self.files[name].path) if name else None

    def picture(self, name: str, above: str = "") -> Picture:
        """The file as a picture whose label is not known yet; `above` comes before its name."""
        return Picture(above + name, 0, self.files[name])

    def content(self, name: str) -> bytes:
        """The bytes of a small file. Raises ConfigurationError if it is large or cannot be read."""
        extent = self.files[name]
        if max(extent.length, extent.inflated) > LARGEST_TEXT:
            raise ConfigurationError(f"{self.path}: {name} has {extent.length:,} bytes, too many for a list; refused")
        with explained(f"{self.path}: cannot read {name}", OSError, ValueError), Path(extent.path).open("rb") as file:
            file.seek(extent.offset)
            content = file.read(extent.length)
            return inflate(content, extent.inflated) if extent.inflated else content

    def text(self, name: str) -> str:
        """The text of a small file."""
        return self.content(name).decode("utf-8-sig", "replace")


def open_tree(path: Path, scratch: Path, most: int | None = None) -> Tree:
    """The files of a folder or an archive; side files of systems and file servers are passed over.

    A .tar.gz is inflated into the folder `scratch`, to `most` bytes at most. If all files lie in one folder that is not
    a split's, names begin below it. Raises ConfigurationError if the source cannot be read, or is a hostile archive.
    """
    special: list[str] = []
    folders: set[str] = set()
    if path.is_dir():
        found = _in_folder(path, "", folders, special)
    elif path.name.lower().endswith(TARS):
        found = tar_files(path, scratch, most)
    elif zipfile.is_zipfile(path):
        found = _in_zip(path)
    else:
        raise ConfigurationError(f"source={path} is not a folder, a zip, a tar or a .tar.gz, or it is cut short")
    files: dict[str, Extent] = {}
    for name, extent in found:
        if name in files:
            raise ConfigurationError(f"{path}: {name!r} is there twice")
        files[name] = extent
        folders |= {name[:i] for i, letter in enumerate(name) if letter == "/"} if path.is_file() else set()
    root = 0  # where names begin
    while len(tops := {name[root:].partition("/")[0] for name in (*files, *folders) if len(name) > root}) == 1:
        top = tops.pop()
        if top in SPLIT_NAMES or any(name[root:] == top for name in files):
            break
        root += len(top) + 1
    return Tree(
        path,
        {name[root:]: extent for name, extent in files.items()},
        frozenset(name[root:] for name in folders) - {""},
        tuple(name[root:] for name in special),
    )


def _in_folder(path: Path, above: str, folders: set[str], special: list[str]) -> Iterator[tuple[str, Extent]]:
    """All files, by their names in UTF-8, whatever the locale; links to folders lead to splits and classes only."""
    folder = path / os.fsdecode(above.encode("utf-8", "surrogateescape"))
    with explained(f"cannot list {folder}"), os.scandir(folder) as found:
        entries = sorted((entry for entry in found if not SIDE.search(entry.name)), key=lambda entry: entry.name)
    for entry in entries:
        name = above + os.fsencode(entry.name).decode("utf-8", "surrogateescape")
        if entry.is_dir(follow_symlinks=above.count("/") < 2):
            folders.add(name)
            yield from _in_folder(path, f"{name}/", folders, special)
        elif entry.is_file():
            with explained(f"cannot read {entry.path}"):
                state = entry.stat()
            yield name, Extent(entry.path, 0, state.st_size, state.st_mtime_ns)
        else:
            special.append(name)


def _in_zip(path: Path) -> Iterator[tuple[str, Extent]]:
    """The files of a zip, by its directory; a member that is a link, encrypted, or impossible is refused."""
    damaged = (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, struct.error)
    with (
        explained(f"{path} is damaged, or cut short", *damaged),
        zipfile.ZipFile(path) as archive,
        path.open("rb") as f,
    ):
        state = os.fstat(f.fileno())
        held = 0
        for member in archive.infolist():
            check_leads_inside(member.filename, path)
            held += member.compress_size
            if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ConfigurationError(f"{path}: member {member.filename!r} is encrypted, or not deflated; refused")
            if stat.S_ISLNK(member.external_attr >> 16):
                raise ConfigurationError(f"{path}: member {member.filename!r} is a link, not a file; refused")
            if (member.file_size > LARGEST_INFLATED and not SIDE.search(member.filename)) or held > state.st_size:
                raise ConfigurationError(f"{path}: member {member.filename!r} has {member.file_size:,} bytes; refused")
            if member.is_dir() or SIDE.search(member.filename):
                continue
            signature, name, extra = _LOCAL_HEADER.unpack(os.pread(f.fileno(), 30, member.header_offset))
            start = member.header_offset + 30 + name + extra
            if signature != b"PK\3\4" or start + member.compress_size > state.st_size:
                raise ConfigurationError(f"{path}: member {member.filename!r} is damaged, or the file is cut short")
            inflated = member.file_size if member.compress_type == zipfile.ZIP_DEFLATED else 0
            extent = Extent(str(path), start, member.compress_size, state.st_mtime_ns, inflated)
            yield member.filename.removeprefix("./"), extent


def tar_files(path: Path, scratch: Path, most: int | None = None) -> Iterator[tuple[str, Extent]]:
    """The files of a .tar where they lie, or of a .tar.gz in a copy that is inflated into `scratch` first."""
    modified = path.stat().st_mtime_ns
    plain = path if path.suffix.lower() == ".tar" else _inflated(path, scratch / "inflated", most)
    with plain.open("rb") as file:
        for member in index_tar(file, path):
            name = member.name.removeprefix("./")
            if not SIDE.search(name):
                yield name, Extent(str(plain), member.offset, member.length, modified)


def _inflated(path: Path, folder: Path, most: int | None) -> Path:
    """A .tar.gz without its compression, of an earlier start or made now."""
    state = path.stat()
    most = LARGEST_RATIO * state.st_size + (1 << 20) if most is None else most
    target = folder / f"{state.st_mtime_ns}-{state.st_size}-{path.name}.tar"
    if target.exists():
        return target
    folder.mkdir(exist_ok=True)
    unfinished = target.with_suffix(".unfinished")
    damaged = (OSError, EOFError, zlib.error)
    with (
        explained(f"{path} is damaged, or cut short, or {folder} has no room to inflate it", *damaged),
        tqdm(desc=f"inflating {path.name}", unit="B", unit_scale=True, disable=None) as bar,
        gzip.open(path) as source,
        unfinished.open("wb") as out,
    ):
        while block := source.read(1 << 20):
            bar.update(out.write(block))
            if out.tell() > most:
                raise ConfigurationError(f"{path} holds more than {most:,} bytes once unpacked; refused")
    return unfinished.rename(target)
