"""The folder of a run: whose it is, when a run goes on in it, and what a full disk loses of it: nothing."""

import errno
import json
import logging
import os
from pathlib import Path

import pytest

from alexnet_mp import ConfigurationError
from alexnet_mp.checkpoint.files import save_checkpoint
from alexnet_mp.common.disk import FolderLock
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.training.run_folder import RunFolder
from alexnet_mp.training.run_lock import RunLock, lock_run_folder
from tests.support.checkpoints import narrow_network, weights

ALONE = Mesh(choose_placement("simulated", "cpu", 2, Launch()), None)


def claim(run_dir: Path | str | None, configuration: str = "run: 0") -> RunLock:
    """RunLock a folder, and let go of it as a process that ends does."""
    found, lock = lock_run_folder(str(run_dir) if run_dir else None, "digits", configuration, ALONE)
    lock.release()
    return found


def saved(run_dir: Path, step: int) -> Path:
    folder = run_dir / "checkpoints" / f"step-{step:09d}"
    save_checkpoint(folder, weights(), narrow_network(), {"progress": {"step": step}}, timeout_seconds=5)
    return folder


def test_runs_that_start_in_the_same_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("alexnet_mp.training.run_lock.time.time", lambda: 1_000_000_000.0)
    folders = [Path(claim(None, f"run: {number}").path) for number in range(3)]
    assert folders == [folders[0], *(folders[0].with_name(f"{folders[0].name}-{n}") for n in (2, 3))]
    assert [(folder / "config.yaml").read_text() for folder in folders] == ["run: 0", "run: 1", "run: 2"]


def test_processes_that_torchrun_starts_again_go_on_in_their_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "this")
    monkeypatch.setattr("alexnet_mp.training.run_lock.time.time", lambda: 1_000_000_000.0)
    mine = claim(None).path
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    other = claim(None).path
    assert other != mine
    assert claim(None).path == other
    assert claim(None, "run: 1").path != other
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "this")
    assert claim(None).path == mine
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a third")
    assert claim(None).path not in (mine, other)


def test_a_later_torchrun_with_the_same_id_does_not_go_on_in_the_folder_of_an_earlier_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "alexnet")  # as --rdzv-id gives it
    first = claim(None).path
    assert claim(None).path == first
    monkeypatch.setattr("alexnet_mp.training.run_lock.os.getppid", os.getpid)
    assert claim(None).path != first


def test_a_folder_with_a_checkpoint_is_one_to_go_on_in_whatever_the_configuration(tmp_path):
    run = tmp_path / "run"
    assert claim(run).checkpoint == ""
    saved(run, 22)
    newest = saved(run, 100)
    found = claim(run, "run: 1")
    assert (found.checkpoint, found.description["progress"]) == (newest.name, {"step": 100})
    assert (run / "config.yaml").read_text() == "run: 0", "nothing is changed before the run begins"


def test_a_run_that_has_made_no_checkpoint_is_begun_again_with_whatever_configuration(tmp_path):
    run = tmp_path / "run"
    claim(run)
    (run / "metrics.jsonl").write_text("{}\n")
    assert claim(run).checkpoint == ""
    assert (run / "metrics.jsonl").exists(), "the same configuration goes on with its files"
    for number in (1, 2):
        assert claim(run, f"run: {number}").checkpoint == ""
        assert (run / "config.yaml").read_text() == f"run: {number}"
        assert (run / f"config-earlier-{number}.yaml").read_text() == f"run: {number - 1}"
    assert (run / "metrics-earlier-1.jsonl").read_text() == "{}\n", "what the first one left is kept"
    assert not (run / "metrics.jsonl").exists()


@pytest.mark.parametrize("held", ["summary.json", "metrics.jsonl"])
@pytest.mark.parametrize("configuration", ["run: 0", "run: 1"])
def test_a_folder_that_holds_more_than_a_begun_run_is_left_alone(held, configuration, tmp_path):
    run = tmp_path / "run"
    if held == "summary.json":
        claim(run)
    else:
        run.mkdir()  # no configuration: nobody knows whose these metrics are
    (run / held).write_text("{}")
    before = {path.name for path in run.iterdir()}
    with pytest.raises(ConfigurationError, match="holds a run already, and no checkpoint of it; choose another"):
        claim(run, configuration)
    assert {path.name for path in run.iterdir()} == before
    assert (run / held).read_text() == "{}"


def test_a_run_that_is_killed_while_it_writes_its_configuration_can_be_started_again(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def cut(*_):
        raise Killed

    with monkeypatch.context() as context:
        context.setattr("os.fsync", cut)
        context.setattr("alexnet_mp.training.run_lock.FolderLock", lambda _folder: None)  # a kill lets go of it
        with pytest.raises(Killed):
            claim(tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()
    assert claim(tmp_path / "run").problem == ""


def test_a_folder_whose_checkpoints_are_all_damaged_is_not_begun_again(tmp_path):
    run = tmp_path / "run"
    claim(run)
    for step in (1, 2):
        (saved(run, step) / "tower-0.safetensors").unlink()
    with pytest.raises(ConfigurationError, match=r"none of its 2 checkpoints is whole.*step-000000002.*tower-0"):
        claim(run)


@pytest.mark.parametrize("name", ["config.yaml", "checkpoints", ".launch"])
def test_what_is_no_file_or_no_folder_in_a_run_folder_is_said(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "this")
    runs = tmp_path / "runs" / "digits"
    (runs / "1").mkdir(parents=True)
    if name == "checkpoints":
        (runs / "1" / name).touch()
    else:
        (runs / "1" / name).mkdir()
    run_dir = None if name == ".launch" else runs / "1"
    with pytest.raises(ConfigurationError, match=rf"^run folder {run_dir or runs}: .*/{name}'; choose another"):
        claim(run_dir)
    (runs / "1" / name).rename(runs / "1" / "aside")
    claim(run_dir)


def test_a_configuration_that_is_no_text_is_that_of_another_run(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="holds a run already"):
        claim(run)


def test_two_runs_do_not_write_into_one_folder(tmp_path):
    claim(tmp_path / "run")
    held = FolderLock(tmp_path / "run")
    with pytest.raises(ConfigurationError, match="another process is training into it"):
        claim(tmp_path / "run")
    held.release()
    claim(tmp_path / "run")


def begun(path: Path, found: RunLock | None = None, configuration: str = "run: 0") -> RunFolder:
    folder = RunFolder(path, is_main=True)
    folder.open_log()
    folder.begin(found or RunLock(str(path)), 1 if found else 0, configuration)
    return folder


def test_metrics_go_on_where_the_checkpoint_was_written(tmp_path):
    run = Path(claim(tmp_path / "run").path)
    folder = begun(run)
    folder.append({"kind": "train", "step": 1, "loss": 0.5})
    size = folder.flush_metrics()
    folder.append({"kind": "train", "step": 2, "loss": 0.25})
    folder.close()
    with folder.metrics.open("a") as file:
        file.write('{"kind": "tr')  # as a kill leaves it
    folder = begun(run, RunLock(str(run), "step-000000001", {"metrics_bytes": size, "progress": {"step": 1}}))
    folder.append({"kind": "train", "step": 2, "loss": 0.125})
    folder.close()
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 0.5), (2, 0.125)]


def test_a_changed_configuration_is_written_and_the_old_one_kept(tmp_path):
    run = Path(claim(tmp_path / "run").path)
    description = {"progress": {"step": 1}}
    begun(run, RunLock(str(run), "step-000000001", description), "run: 0").close()
    assert [path.name for path in run.glob("config*")] == ["config.yaml"]
    begun(run, RunLock(str(run), "step-000000001", description), "run: 1").close()
    assert (run / "config.yaml").read_text() == "run: 1"
    assert (run / "config-until-step-000000001.yaml").read_text() == "run: 0"


def test_the_configuration_that_trained_until_a_checkpoint_stays_whatever_was_tried_from_it(tmp_path):
    run = Path(claim(tmp_path / "run").path)
    from_here = RunLock(str(run), "step-000000001", {"progress": {"step": 1}})
    for configuration in ("run: 1", "run: 2", "run: 3"):
        begun(run, from_here, configuration).close()
        assert (run / "config.yaml").read_text() == configuration
    assert [path.name for path in run.glob("config-*")] == ["config-until-step-000000001.yaml"]
    assert (run / "config-until-step-000000001.yaml").read_text() == "run: 0"


def test_a_damaged_checkpoint_is_set_aside_and_named(tmp_path, caplog):
    run = Path(claim(tmp_path / "run").path)
    saved(run, 1)
    damaged = saved(run, 2)
    (damaged / "checkpoint.json").write_text("{")
    found = claim(run)
    assert found.checkpoint == "step-000000001"
    logging.getLogger("alexnet_mp").propagate = True
    begun(run, found).close()
    assert f"{damaged} is not a checkpoint" in caplog.text
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "damaged-step-000000002",
        "step-000000001",
    ]
    assert claim(run).damaged == {}


def test_metrics_that_are_taken_away_from_a_run_do_not_keep_it_from_saving(tmp_path, caplog):
    run = Path(claim(tmp_path / "run").path)
    folder = begun(run)
    logging.getLogger("alexnet_mp").propagate = True
    folder.append({"kind": "train", "step": 1})
    folder.metrics.unlink()
    assert folder.flush_metrics() == 0
    folder.append({"kind": "train", "step": 2})
    folder.metrics.rename(run / "moved.jsonl")
    folder.append({"kind": "train", "step": 3})
    folder.append({"kind": "train", "step": 4})
    size = folder.flush_metrics()
    assert [json.loads(line)["step"] for line in folder.metrics.read_text().splitlines()] == [3, 4]
    assert size == folder.metrics.stat().st_size
    folder.metrics.write_text("")
    folder.append({"kind": "train", "step": 5})
    folder.close()
    assert [json.loads(line)["step"] for line in folder.metrics.read_text().splitlines()] == [5]
    assert [words.endswith("going on with that") for words in caplog.messages] == [True] * 3, "each loss, once"


def test_a_full_disk_loses_no_line_of_metrics(tmp_path, monkeypatch):
    run = Path(claim(tmp_path / "run").path)
    folder = begun(run)
    folder.append({"kind": "train", "step": 1})
    opened = Path.open

    def full(path, mode="r", *arguments, **settings):
        if path == folder.metrics and "+" in mode:
            with opened(path, "ab") as file:
                file.write(b'{"kind": "tra')  # what still fits
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, mode, *arguments, **settings)

    with monkeypatch.context() as context:
        context.setattr(Path, "open", full)
        for step in (2, 3):
            folder.append({"kind": "train", "step": step})
        with pytest.raises(OSError, match="No space left"):
            folder.flush_metrics()
    folder.append({"kind": "train", "step": 4})
    size = folder.flush_metrics()
    folder.close()
    lines = folder.metrics.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
    assert size == folder.metrics.stat().st_size
