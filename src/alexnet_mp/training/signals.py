"""Notes SIGTERM and SIGINT, so that all processes of a run stop after the same step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


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
    """Note SIGTERM and SIGINT instead of ending. Outside of the main thread Python has no signals."""
    signals = StopSignals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {number: signal.signal(number, signals.note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
