"""The log of a run: to the console from the main process, around the progress bar, and to `train.log`."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm.contrib.logging import logging_redirect_tqdm

LOG = logging.getLogger("alexnet_mp")


@contextmanager
def console_log(is_main: bool) -> Iterator[None]:
    """Log to the console from the main process, around the progress bar; leave the logger as it was."""
    level, propagate = LOG.level, LOG.propagate
    LOG.setLevel(logging.INFO if is_main else logging.CRITICAL)
    LOG.propagate = False
    console = logging.StreamHandler()
    LOG.addHandler(console)
    try:
        with logging_redirect_tqdm([LOG]):
            yield
    finally:
        LOG.removeHandler(console)
        LOG.setLevel(level)
        LOG.propagate = propagate


class LogFile(logging.FileHandler):
    """A log on a disk that may be full: what it does not take is on the console."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass
