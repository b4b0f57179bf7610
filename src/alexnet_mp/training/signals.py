"""Notes the signals that ask a run to stop, so that all its processes stop after the same step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# A terminal that is closed, and what schedulers send ahead of a time limit, mean the same as being told to end.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class StopSignals:
    """The signal that asked this process to stop, by name; empty if none has."""

    def __init__(self) -> None:
        self.received = ""

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal. A second SIGINT ends the process at once: somebody sits there and waits."""
        if number == signal.SIGINT and self.received == "SIGINT":
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name


@contextmanager
def noted_signals() -> Iterator[StopSignals]:
    """Note the signals of `STOPPING` instead of ending. Outside of the main thread Python has no signals.

    A SIGHUP that is ignored stays ignored: nohup's choice.
    """
    signals = StopSignals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    noted = [number for number in STOPPING if number != signal.SIGHUP or not ignored]
    before = {number: signal.signal(number, signals.note) for number in noted}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
