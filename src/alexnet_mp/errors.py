"""The exceptions that end a command with one line; each has an exit code of its own."""

import re
from collections.abc import Iterator
from contextlib import contextmanager


class ConfigurationError(ValueError):
    """A mistake in what the user asked for; commands print its message as one line and exit with code 2."""


@contextmanager
def explained(what: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn an error of these `kinds` (without any, an OSError) into a ConfigurationError: `what`, and why, in one line.

    A ConfigurationError passes as it is, unless it is named among the kinds itself.
    """
    caught = kinds or (OSError,)
    try:
        yield
    except caught as error:
        if isinstance(error, ConfigurationError) and ConfigurationError not in kinds:
            raise
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        if isinstance(error, OSError) and error.strerror and str(error.filename) in what:
            why = error.strerror  # without the name again
        raise ConfigurationError(f"{what}: {' '.join(why.split()) or type(error).__name__}") from error


class PeerLost(RuntimeError):
    """Another process of the run hung or vanished; the message says where it was missed. Exit code 1.

    `named` where the message says which process that was.
    """

    def __init__(self, message: str, named: bool = False) -> None:
        super().__init__(message)
        self.named = named


class DataLost(RuntimeError):
    """Images that were there at the start of a run cannot be read any more, perhaps on one node alone. Exit code 1."""


class LinkError(RuntimeError):
    """What crosses between towers does not arrive as it was sent. Exit code 1."""


class NotSaved(RuntimeError):
    """The last state of a run could not be written to the disk; what was saved before is valid. Exit code 1."""


class Stopped(Exception):
    """A signal asked the run to stop, and all of it is saved; the same command goes on. Exit code 75."""


def in_short(error: BaseException) -> str:
    """What an error that is not ours says, to stand in one of ours: the first sentence, without a place in C++ code."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[\S+:\d+\] ", "", line).split(". ")[0]
