"""OpenMP's threads sleep while they wait if more wants to run than there are cores, and spin otherwise."""

import os
from pathlib import Path

import pytest

from alexnet_mp.common.openmp import choose_wait_policy


@pytest.mark.parametrize(
    ("running", "cores", "usable", "environment", "policy"),
    [
        (1, 2, 2, {}, None),  # this process alone, with two threads on two cores
        (2, 2, 2, {}, "passive"),  # beside one that spins
        (2, 2, 2, {"OMP_NUM_THREADS": "1"}, None),
        (3, 2, 2, {"OMP_NUM_THREADS": "1"}, "passive"),
        (2, 2, 2, {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "2"}, None),  # torchrun's two processes
        (3, 2, 2, {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "2"}, "passive"),
        (20, 64, 4, {}, None),  # four cores of a large machine
        (2, 2, 2, {"OMP_WAIT_POLICY": "active"}, "active"),
        (2, 2, 2, {"OMP_NUM_THREADS": "many"}, None),
    ],
)
def test_threads_sleep_if_more_wants_to_run_than_there_are_cores(
    running: int,
    cores: int,
    usable: int,
    environment: dict[str, str],
    policy: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(usable)))
    loadavg = tmp_path / "loadavg"
    loadavg.write_text(f"0.00 0.01 0.05 {running}/106 5203\n", "utf-8")
    choose_wait_policy(loadavg)
    assert os.environ.get("OMP_WAIT_POLICY") == policy
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)


def test_nothing_is_changed_where_the_system_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    choose_wait_policy(tmp_path / "nothing")
    assert "OMP_WAIT_POLICY" not in os.environ
