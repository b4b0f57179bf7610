"""Files and folders that survive a power cut: durable writes, and a lock for each folder."""

import fcntl
import os
from pathlib import Path


def flush(path: Path) -> None:
    """Have the disk hold what was written to a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there with all of `content`, on the disk, or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    flush(path.parent)


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

    def release(self) -> None:
        """Let another process have the folder."""
        os.close(self.descriptor)
