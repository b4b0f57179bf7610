"""Notices that the cores have more to do than this run, and says once that the training is slow for it."""

from pathlib import Path

from alexnet_mp.common.host import usable_cores
from alexnet_mp.common.text import count

SECONDS = 5.0  # are looked at together
SHARE = 0.25  # of them without a core


class CoreWatch:
    """Watches how long the thread that trains is ready to run and has no core. Linux alone tells."""

    def __init__(self, now: float) -> None:
        self._began, self._before, self._said = now, _waited(), False

    def look(self, now: float) -> str:
        """Returns what to tell the user, once, and else nothing; `now` is in seconds."""
        seconds = now - self._began
        if self._said or seconds < SECONDS:
            return ""
        waited = _waited()
        share = (waited - self._before) / seconds
        self._began, self._before, self._said = now, waited, share >= SHARE
        words = (
            f"too much runs on the {count(usable_cores(), 'core')}: for {share:.0%} of {seconds:.0f} s this thread was "
            "ready and had none, and each layer waits for the last of its threads"
        )
        return words if self._said else ""


def _waited() -> float:
    """Seconds that this thread has been ready and without a core; 0 if the system does not tell."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text("utf-8").split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
