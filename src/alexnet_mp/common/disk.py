"""Files and folders that survive a power cut: durable writes, and a lock for each folder."""

import errno
import fcntl
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from alexnet_mp.errors import ConfigurationError, explained


def regular(path: Path) -> Path:
    """`path`, to be opened: it is a file or a folder, or is not there.

    Raises OSError for a pipe, for which an open waits for ever, and for a device, which may have no end.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path


def flush(path: Path) -> None:
    """Have the disk hold what was written to a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there with all of `content`, on the disk, or not at all."""
    unfinished = regular(path).with_name(f".{path.name}.unfinished")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    flush(path.parent)


def write_files(folder: Path, writers: Mapping[str, Callable[[Path], object]]) -> list[Path]:
    """Make `folder` and write its files, each whole or not at all, by the writer beside its name; return their paths.

    A writer is given the path to write to, which ends as the file's name does. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, write in writers.items():
        unfinished = regular(folder / name).with_name(f".unfinished-{name}")
        write(unfinished)
        unfinished.replace(folder / name)
    return [folder / name for name in writers]


def write_json(path: str, values: object) -> None:
    """Write the numbers that a command's key `json` asks for. Raises ConfigurationError if it cannot."""
    with explained(f"cannot write json={path}"):
        regular(Path(path)).write_text(json.dumps(values, indent=2) + "\n", "utf-8")


def lock_folder(folder: Path, out: Path, busy: str) -> "FolderLock":
    """Make `folder`, in which the user's `out` is to be written, and lock it.

    Raises ConfigurationError with the words `busy` if another process holds it, and if it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FolderLock(folder)
    except BlockingIOError as error:
        raise ConfigurationError(busy) from error
    except OSError as error:
        raise ConfigurationError(f"cannot write out={out}: {error.strerror}") from error


class FolderLock:
    """Held until it is released, or until every process that was given its `descriptor` has ended."""

    def __init__(self, folder: Path) -> None:
        """Raises BlockingIOError if another process holds it; no lock, no error on file systems that have none."""
        self.descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.descriptor)
            raise
        except OSError:
            pass

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let another process have the folder."""
        os.close(self.descriptor)
