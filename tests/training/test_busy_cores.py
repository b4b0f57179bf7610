"""Cores that other processes use are noticed by how long this process's threads wait for one, and said once."""

import pytest

from alexnet_mp.training import busy_cores
from alexnet_mp.training.busy_cores import CoreWatch


def said(monkeypatch: pytest.MonkeyPatch, *waited: dict[str, float]) -> list[int]:
    """At which looks, two seconds apart, it is said; `waited` are the threads' seconds without a core, at each."""
    readings = iter(waited)
    looks: list[dict[str, float]] = []

    def read() -> dict[str, float]:
        looks.append(next(readings))
        return looks[-1]

    monkeypatch.setattr(busy_cores, "_waited", read)
    watch = CoreWatch(100.0)
    return [number for number in range(1, 31) if watch.look(100.0 + 2 * number)]


@pytest.mark.parametrize(
    ("waited", "looks"),
    [
        # Read at the start and then every third look, when 6 s are over.
        ([{"1": 0.0}, {"1": 1.6}], [3]),  # of 6 s, 27 %
        ([{"1": 0.0}, *({"1": 0.2 * n} for n in range(1, 11))], []),  # a loader's short turns
        ([{"1": 50.0}, {"1": 50.2}, {"1": 53.0}], [6]),  # since the look before, and once
        ([{"1": 0.0}, {"1": 0.0, "2": 4.0}], [3]),  # a thread that has begun since
        ([{"1": 0.0, "2": 9.0}, *({"1": 0.1} for _ in range(10))], []),  # one that has ended
        ([{"1": 0.0}, *[{}] * 10], []),
        ([{}], []),  # a system that does not tell
    ],
)
def test_a_quarter_of_the_time_without_a_core_is_said_once(
    waited: list[dict[str, float]], looks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(monkeypatch, *waited) == looks


def test_what_is_said_names_cores_share_and_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([{"1": 0.0}, {"1": 3.0}])
    monkeypatch.setattr(busy_cores, "_waited", lambda: next(readings))
    monkeypatch.setattr(busy_cores, "usable_cores", lambda: 2)
    words = CoreWatch(0.0).look(6.0)
    assert words.startswith("too much runs on the 2 cores: for 50% of 6 s a thread of this run was ready and had none")


def test_linux_tells_it_of_every_thread_of_this_process() -> None:
    found = busy_cores._waited()
    assert all(thread.isdecimal() and seconds >= 0 for thread, seconds in found.items())
