"""The folder of a run belongs to one run."""

import pytest

from alexnet_mp import ConfigurationError
from alexnet_mp.mesh import Mesh
from alexnet_mp.placement import Launch, choose_placement
from alexnet_mp.training.run_folder import open_run_folder

ALONE = Mesh(choose_placement("simulated", "cpu", 2, Launch()), None)


def test_runs_that_start_in_the_same_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("alexnet_mp.training.run_folder.time.time", lambda: 1_000_000_000.0)
    folders = [open_run_folder(None, "digits", f"run: {number}", ALONE) for number in range(3)]
    for folder in folders:
        folder.close()
    first = folders[0].path
    assert [folder.path for folder in folders] == [first, *(first.with_name(f"{first.name}-{n}") for n in (2, 3))]
    assert [(folder.path / "config.yaml").read_text() for folder in folders] == ["run: 0", "run: 1", "run: 2"]


def test_a_named_folder_is_taken_once(tmp_path):
    open_run_folder(str(tmp_path / "run"), "digits", "run: 0", ALONE).close()
    with pytest.raises(ConfigurationError, match="holds a run already; choose another run_dir"):
        open_run_folder(str(tmp_path / "run"), "digits", "run: 1", ALONE)
    assert (tmp_path / "run" / "config.yaml").read_text() == "run: 0"
