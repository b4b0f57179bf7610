"""Standard streams that fail, put on the descriptors of this process, and of a command in one of its own."""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import torch


def full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def killed_reader() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


def head() -> int:
    """A pipe whose reader leaves after the first bytes, as `head -1` does."""
    read, write = os.pipe()

    def leave() -> None:
        os.read(read, 1)
        os.close(read)

    threading.Thread(target=leave, daemon=True).start()
    return write


def hung_up() -> int:
    """A terminal that is gone: EIO."""
    ours, theirs = os.openpty()
    os.close(ours)
    return theirs


def null() -> int:
    return os.open(os.devnull, os.O_RDWR)


Opener = Callable[[], int] | None  # None: the descriptor is closed
NAMES = ("stdin", "stdout", "stderr")


@contextmanager
def streams(*openers: Opener) -> Iterator[None]:
    """Descriptors 0 to 2 of this process, and Python's streams on them, as after `0<... >... 2>...`."""
    kept = [os.dup(descriptor) for descriptor in range(3)]
    before = [getattr(sys, name) for name in NAMES]
    opened = [each and each() for each in openers]
    for descriptor, (name, new) in enumerate(zip(NAMES, opened, strict=True)):
        if new is None:
            os.close(descriptor)
            setattr(sys, name, None)
        else:
            os.dup2(new, descriptor)
            os.close(new)
            mode, buffering = ("w", 1 if name == "stderr" else -1) if descriptor else ("r", -1)
            setattr(sys, name, open(descriptor, mode, buffering, closefd=False))  # noqa: SIM115
    try:
        yield
    finally:
        for descriptor, (name, old) in enumerate(zip(NAMES, before, strict=True)):
            os.dup2(kept[descriptor], descriptor)
            os.close(kept[descriptor])
            setattr(sys, name, old)


def exit_code(command: ModuleType, arguments: Sequence[str], cwd: Path) -> int:
    """The code with which a command of `alexnet_mp.commands` ends here, the last flush of its streams included."""
    kept = Path.cwd()
    os.chdir(cwd)
    try:
        with patch.object(sys, "argv", [str(command.__file__), *arguments]), patch.dict(os.environ):
            command.main()
    except SystemExit as ended:
        assert isinstance(ended.code, int)
        return ended.code
    finally:
        os.chdir(kept)
        torch.set_num_threads(1)
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except OSError:
        return 120  # Python's, in Py_FinalizeEx
    return 0
