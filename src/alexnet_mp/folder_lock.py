"""A folder is one process's: a lock that the system lets go of when its process is killed."""

import fcntl
import os
from pathlib import Path


class FolderLock:
    """Held until it is released, or until every process that was given its `descriptor` has ended."""

    def __init__(self, folder: Path) -> None:
        """Raises BlockingIOError where another process holds it; no lock, no error on file systems that have none."""
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
