"""Cores that other processes use are noticed by how long this process's threads wait for one, and said once."""

import pytest

from alexnet_mp.training import busy_cores
from alexnet_mp.training.busy_cores import CoreWatch


def said(monkeypatch: pytest.MonkeyPatch, waited: list[float]) -> dict[int, str]:
    """What is said at which of 30 looks, two seconds apart; `waited` are seconds without a core, as they are read."""
    readings = iter(waited)
    monkeypatch.setattr(busy_cores, "_waited", lambda: next(readings))
    monkeypatch.setattr(busy_cores, "usable_cores", lambda: 2)
    watch = CoreWatch(100.0)
    looks = {number: watch.look(100.0 + 2 * number) for number in range(1, 31)}
    return {number: words for number, words in looks.items() if words}


@pytest.mark.parametrize(
    ("waited", "looks"),
    [
        # Read at the start and then at every third look, when 6 s are over.
        ([0.0, 1.6], [3]),  # of 6 s, 27 %
        ([0.2 * n for n in range(11)], []),  # a loader's short turns
        ([50.0, 50.2, 53.0], [6]),  # since the look before, and once
        ([0.0] * 11, []),  # a system that does not tell
    ],
)
def test_a_quarter_of_the_time_without_a_core_is_said_once(
    waited: list[float], looks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(said(monkeypatch, waited)) == looks


def test_what_is_said_names_cores_share_and_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    (words,) = said(monkeypatch, [0.0, 3.0]).values()
    assert words.startswith("too much runs on the 2 cores: for 50% of 6 s this thread was ready and had none")


def test_linux_tells_it_of_this_thread() -> None:
    assert busy_cores._waited() >= 0
