"""The log of a run: to the console from the main process, around the progress bar, and to `train.log`."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import MemoryHandler
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from alexnet_mp.common.streams import lost_output, unfailing_streams

LOG = logging.getLogger("alexnet_mp")


@contextmanager
def console_log(is_main: bool) -> Iterator[None]:
    """Log to the console from the main process, around the progress bar; leave the logger as it was.

    Neither log nor bar ends a run: what standard error does not take is lost. What is said before there is a `LogFile`
    is kept for it.
    """
    level, propagate = LOG.level, LOG.propagate
    with unfailing_streams():
        LOG.setLevel(logging.INFO if is_main else logging.CRITICAL)
        LOG.propagate = False
        console, early = logging.StreamHandler(), MemoryHandler(capacity=0, flushLevel=logging.CRITICAL + 1)
        LOG.addHandler(console)
        LOG.addHandler(early)
        try:
            with logging_redirect_tqdm([LOG]):
                yield
        finally:
            LOG.removeHandler(console)
            LOG.removeHandler(early)
            LOG.setLevel(level)
            LOG.propagate = propagate


class LogFile(logging.FileHandler):
    """A log on a disk that may be full: what it does not take is on the console. It says once what the console lost."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self._said: set[str] = set()
        for early in [each for each in LOG.handlers if isinstance(each, MemoryHandler)]:
            early.setTarget(self)
            early.close()  # which flushes it
            LOG.removeHandler(early)

    def emit(self, record: logging.LogRecord) -> None:
        for name in lost_output().keys() - self._said:
            self._said.add(name)
            words = f"lost       what is printed to {name}: {lost_output()[name]}"
            super().emit(LOG.makeRecord(LOG.name, logging.WARNING, "", 0, words, (), None))
        super().emit(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:
        pass
