"""Standard output and error that never end a command: what they do not take is lost, and they know why."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from alexnet_mp.common.text import take_every_character

NAMES = {"stdout": "standard output", "stderr": "standard error"}


class UnfailingStream:
    """A text stream whose `write` and `flush` never raise an OSError; all else is the `stream`'s own.

    `problem` is the first error, and empty while everything was taken. Each write is tried: a disk may have room again.
    """

    def __init__(self, stream: TextIO, problem: str = "") -> None:
        self._stream = stream
        self.problem = problem

    def write(self, text: str) -> int:
        """Write, or lose the text. Returns its length either way."""
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        """Flush, or keep what the stream does not take yet."""
        self._try("flush")

    def _try(self, method: str, *arguments: str) -> None:
        try:
            getattr(self._stream, method)(*arguments)
        except (OSError, ValueError) as error:  # Python's ValueError is of a file that somebody has closed
            if isinstance(error, UnicodeError):
                raise
            self.problem = self.problem or getattr(error, "strerror", None) or str(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def lost_output() -> dict[str, str]:
    """Which of this process's streams has lost something, by name, and why."""
    streams = {name: getattr(sys, attribute) for attribute, name in NAMES.items()}
    return {name: each.problem for name, each in streams.items() if isinstance(each, UnfailingStream) and each.problem}


@contextmanager
def unfailing_streams() -> Iterator[None]:
    """Make `sys.stdout` and `sys.stderr` unfailing, and open the null device on descriptors 0 to 2 that are closed.

    Otherwise the next file that is opened, a checkpoint perhaps, would be the standard error of C libraries. What their
    encoding lacks is shown in ASCII. At the end, standard error says that standard output has lost something, unless
    its reader has left, as `head` does.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free, so this one
    take_every_character()
    before = {name: getattr(sys, name) for name in NAMES}
    for name, stream in before.items():
        if stream is None:
            null = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  (it stays)
            setattr(sys, name, UnfailingStream(null, "it is closed"))
        elif not isinstance(stream, UnfailingStream):
            setattr(sys, name, UnfailingStream(stream))
    made = {name: getattr(sys, name) for name in NAMES if getattr(sys, name) is not before[name]}
    try:
        yield
    finally:
        for name, ours in made.items():
            ours.flush()
            if name == "stdout" and before[name] and ours.problem not in ("", os.strerror(errno.EPIPE)):
                print(f"lost       {NAMES[name]}: {ours.problem}", file=sys.stderr)
            # One that has lost something stays: Python ends with code 120 if its last flush of a stream fails.
            if getattr(sys, name) is ours and not ours.problem:
                setattr(sys, name, before[name])
