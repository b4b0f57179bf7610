"""Notices that the cores have more to do than this run, and says once that the training is slow for it."""

from pathlib import Path

from alexnet_mp.common.host import usable_cores
from alexnet_mp.common.text import count

SECONDS = 5.0  # are looked at together
SHARE = 0.25  # of them without a core


class CoreWatch:
    """Watches how long the threads of this process are ready to run and have no core. Linux alone tells."""

    def __init__(self, now: float) -> None:
        self._said = not (waited := _waited())
        self._began, self._before = now, waited

    def look(self, now: float) -> str:
        """Returns what to tell the user, once, and else nothing; `now` is in seconds."""
        seconds = now - self._began
        if self._said or seconds < SECONDS:
            return ""
        waited = _waited()
        share = max((each - self._before.get(thread, 0.0) for thread, each in waited.items()), default=0.0) / seconds
        self._began, self._before = now, waited
        self._said = share >= SHARE
        if not self._said:
            return ""
        return (
            f"too much runs on the {count(usable_cores(), 'core')}: for {share:.0%} of {seconds:.0f} s a thread of this "
            "run was ready and had none, and each layer waits for the last of its threads"
        )


def _waited() -> dict[str, float]:
    """Seconds that each thread has been ready and without a core; empty if the system does not tell."""
    found = {}
    for path in Path("/proc/self/task").glob("*/schedstat"):
        try:
            found[path.parent.name] = int(path.read_text().split()[1]) / 1e9
        except (OSError, IndexError, ValueError):  # a thread that has ended
            continue
    return found
