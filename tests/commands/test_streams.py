"""Standard output and error that fail: every command goes on to its end, and leaves what it would have left."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from alexnet_mp.commands import describe, evaluate, plan, prepare, report, sweep, train
from alexnet_mp.common.streams import lost_output, unfailing_streams
from tests.support.disturbed import TORCHRUN, TRAIN, assert_ended_alike, trained
from tests.support.preparation import COUNTS, noise
from tests.support.processes import CHECKOUT
from tests.support.reports import a_run
from tests.support.streams import Opener, exit_code, full, head, hung_up, killed_reader, null, streams
from tests.training.test_train import NARROW

SHORT = (*NARROW, "recipe.epochs=1", "recipe.batch_size=128", "checkpoint_steps=5", "threads=1")
NO_SPACE, BROKEN_PIPE, IO_ERROR, CLOSED = "No space left on device", "Broken pipe", "Input/output error", "it is closed"

# As a shell would write it: the streams, and what train.log says is lost.
CASES: dict[str, tuple[tuple[Opener, Opener, Opener], dict[str, str]]] = {
    "2>/dev/full": ((null, null, full), {"standard error": NO_SPACE}),
    "2>&-": ((null, null, None), {"standard error": CLOSED}),
    ">&- 2>&-": ((null, None, None), {"standard output": CLOSED, "standard error": CLOSED}),
    "<&- >&- 2>&-": ((None, None, None), {"standard output": CLOSED, "standard error": CLOSED}),
    "2>&1 | head -1": ((null, head, head), {"standard error": BROKEN_PIPE}),
    "2> >(killed)": ((null, null, killed_reader), {"standard error": BROKEN_PIPE}),
    "a terminal that is gone": ((hung_up, hung_up, hung_up), {"standard error": IO_ERROR}),
    "0<&-": ((None, null, null), {}),
}


SLOW = {"2>&-", ">&- 2>&-", "2> >(killed)", "0<&-", "killed readers"}  # much like the others


def sorted_by_speed(cases: dict[str, Any]) -> list[Any]:
    return [pytest.param(case, marks=pytest.mark.slow if case in SLOW else ()) for case in cases]


@pytest.fixture(scope="module", autouse=True)
def without_curves() -> Iterator[None]:
    with patch("alexnet_mp.training.curves.draw_learning_curves"):
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("undisturbed") / "run", *SHORT)


@pytest.mark.parametrize("case", sorted_by_speed(CASES))
def test_a_run_whose_streams_fail_ends_bit_equal_and_train_log_says_once_what_was_lost(
    case: str, undisturbed: Path, tmp_path: Path
) -> None:
    openers, lost = CASES[case]
    run = tmp_path / "run"
    with streams(*openers):
        code = exit_code(train, [f"run_dir={run}", *SHORT], tmp_path)
        ends = [str(Path(f"/proc/self/fd/{number}").readlink()) for number in range(3)]
    assert code == 0
    assert [end for end, opener in zip(ends, openers, strict=True) if opener is None and end != os.devnull] == []
    assert_ended_alike(undisturbed, run)
    assert {path.name for path in run.iterdir()} == {path.name for path in undisturbed.iterdir()}
    said = [line for line in (run / "train.log").read_text().splitlines() if line.startswith("lost ")]
    assert sorted(said) == sorted(f"lost       what is printed to {name}: {why}" for name, why in lost.items())


@pytest.mark.slow
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2>&1 | head -1"])
def test_two_processes_of_torchrun_under_a_shell_end_bit_equal(
    redirection: str, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = f'"$@" {redirection}; exit ${{PIPESTATUS[0]}}'
    launcher = [*TORCHRUN, "--nproc-per-node=2", TRAIN, f"run_dir={run}", *SHORT]
    finished = subprocess.run(["bash", "-c", command, "bash", *launcher], capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    assert_ended_alike(undisturbed, run)


BOTH = {
    "full": (null, full, full),
    "closed": (None, None, None),
    "killed readers": (null, killed_reader, killed_reader),
}


MODULES = {each.__name__.rpartition(".")[2]: each for each in (describe, evaluate, plan, prepare, report, sweep, train)}


@pytest.mark.parametrize("case", sorted_by_speed(BOTH))
def test_other_commands_leave_what_they_would_have_left(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path / "run")
    for split, count in COUNTS.items():
        for number in range(count):
            path = tmp_path / "photos" / split / f"class{number % 2}" / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise(number).save(path)
    # In torchrun's place, a job that prints where its streams lead.
    monkeypatch.setattr(
        "alexnet_mp.commands.sweep.torchrun_command", lambda job, processes, presets=None: [sys.executable, "-c", "1"]
    )
    commands = {
        "describe": (["json=cost.json"], ["cost.json"], 0),
        "plan": (["json=plan.json"], ["plan.json"], 0),
        "evaluate": (["checkpoint=run", "device=cpu", "out=found"], ["found/summary.json", "found/classes.csv"], 0),
        "prepare": (["source=photos", "out=pack", "size=16", "workers=1"], ["pack/manifest.json"], 0),
        "report": (["run_dir=run", "out=report.html"], ["report.html"], 0),
        "sweep": (["out=sweep", "+variants.a=[]", "seeds=[0]"], ["sweep/sweep.json"], 1),  # its job leaves no run
        "train": ([f"experiment={'x' * 9}"], [], 2),  # a mistake keeps its code
    }
    codes = {}
    for name, (arguments, _, _) in commands.items():
        with streams(*BOTH[case]):
            codes[name] = exit_code(MODULES[name], arguments, tmp_path)
    assert codes == {name: code for name, (_, _, code) in commands.items()}
    written = [name for _, names, _ in commands.values() for name in names]
    assert [name for name in written if not (tmp_path / name).exists()] == []
    assert json.loads((tmp_path / "found" / "summary.json").read_text())["images"] == 360
    assert run.exists()


def python(redirection: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = f'"{sys.executable}" launch/describe.py "$@" {redirection}'
    return subprocess.run(
        ["bash", "-c", command, "bash", *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=60
    )


def test_a_process_of_its_own_ends_with_code_0_and_says_what_standard_output_lost(tmp_path: Path) -> None:
    finished = python(">/dev/full", f"json={tmp_path / 'cost.json'}")
    assert (finished.returncode, finished.stdout) == (0, "")
    assert finished.stderr == f"lost       standard output: {NO_SPACE}\n"
    assert (tmp_path / "cost.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("redirection", ["2>&-", ">&-", "<&-", ">&- 2>&-", "2>/dev/full", ">/dev/full 2>&1", "| true"])
def test_redirections_of_a_shell_leave_the_code_0(redirection: str, tmp_path: Path) -> None:
    finished = python(f"{redirection}; exit ${{PIPESTATUS[0]}}", f"json={tmp_path / 'cost.json'}")
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "cost.json").exists()


def test_streams_that_took_everything_are_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with unfailing_streams():
        print("taken")
        with unfailing_streams():  # as in a command that trains
            print("taken too", file=sys.stderr)
        assert lost_output() == {}
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("taken\n", "taken too\n")
