"""What must survive a power cut: written through to the disk, and whole or not at all."""

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Have the disk hold what was written to a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Write a file under another name, and give it its own when the disk holds it. Raises OSError."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text)
    flush(unfinished)
    unfinished.replace(path)
    flush(path.parent)
