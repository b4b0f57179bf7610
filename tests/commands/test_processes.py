"""What one process does: torchrun around it carries it out once; more threads than cores are said; gray trains."""

import logging
import os
from pathlib import Path
from unittest.mock import patch

import pytest

from alexnet_mp.common import device
from alexnet_mp.common.device import use_threads
from tests.support.processes import CHECKOUT, Finished, run_script, torchrun
from tests.training.test_train import NARROW, in_this_process, summary

OF_ONE = ["describe", "plan", "convert", "prepare", "report", "plot", "results", "sweep", "classify"]


def as_rank(rank: int, script: str, *arguments: str) -> Finished:
    variables = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    with patch.dict(os.environ, variables):
        return run_script(script, arguments, CHECKOUT)


@pytest.mark.parametrize("command", OF_ONE)
def test_torchrun_carries_out_the_command_of_one_process_once(command: str) -> None:
    script = f"launch/{command}.py"
    assert as_rank(1, script, "mistake=1") == Finished(0, "", "")
    first = as_rank(0, script, "mistake=1")
    assert first.code == 2
    assert len(first.stderr.splitlines()) == 1


def test_rank_0_of_such_a_command_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = run_script("launch/describe.py", ["network=small"], CHECKOUT)
    assert as_rank(0, "launch/describe.py", "network=small") == alone
    assert "conv1" in alone.stdout
    world: list[dict[str, str]] = []
    monkeypatch.setattr("alexnet_mp.commands.plan.predict", lambda *_, **__: world.append(dict(os.environ)))
    with pytest.raises(AttributeError):  # there is no plan
        as_rank(0, "launch/plan.py", "network=small")
    assert not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"} & world[0].keys()


@pytest.mark.slow
def test_torchrun_with_two_processes_prints_one_table(tmp_path: Path) -> None:
    finished = torchrun(2, [str(CHECKOUT / "launch" / "describe.py"), "network=small"], tmp_path)
    assert finished.code == 0, finished.stderr
    assert finished.stdout.count("conv1") == 1


@pytest.mark.parametrize(
    ("threads", "processes", "says", "said"),
    [
        (64, 1, True, ["threads=64 on 2 cores is slower than one thread a core: threads=2"]),
        (2, 2, True, ["threads=2 of each of 2 processes on 2 cores is slower than one thread a core: threads=1"]),
        (64, 1, False, []),
        (2, 1, True, []),
        (1, 2, True, []),
        (None, 64, True, []),
    ],
)
def test_more_threads_than_cores_are_said(
    threads: int | None,
    processes: int,
    says: bool,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(device, "usable_cores", lambda: 2)
    asked: list[int] = []
    monkeypatch.setattr(device.torch, "set_num_threads", asked.append)
    with caplog.at_level(logging.WARNING):
        use_threads(threads, processes, says)
    assert caplog.messages == said
    assert asked == ([] if threads is None else [threads])


def test_one_gray_channel_trains(tmp_path: Path) -> None:
    finished = in_this_process(tmp_path / "run", *NARROW, "network.image=[1,16,16]", "recipe.epochs=1", "threads=1")
    assert finished.code == 0, finished.stderr
    assert summary(tmp_path / "run")["steps"] == 22
