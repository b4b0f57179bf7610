"""When a run is saved: which checkpoint is the best, whatever the disk takes and however long it needs."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from safetensors import SafetensorError

from alexnet_mp.checkpoint import files as checkpoint_files
from alexnet_mp.checkpoint.retention import newest_checkpoint
from alexnet_mp.common.cli import compose
from alexnet_mp.errors import NotSaved
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.training.checkpointing import Checkpointer
from alexnet_mp.training.config import parse_train_settings
from alexnet_mp.training.resume import begin
from alexnet_mp.training.run_folder import RunFolder
from alexnet_mp.training.run_lock import lock_run_folder
from alexnet_mp.training.state import TrainingState
from tests.training.test_train import NARROW

ALONE = Mesh(choose_placement("simulated", "cpu", 2, Launch()), None)


class Disk:
    """One that is waited for while `free` is not set, and that is full where `full` is."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.full = False
        self._written = checkpoint_files.save_file
        self.free.set()

    def save_file(self, *arguments) -> None:
        assert self.free.wait(20)
        if self.full:
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        self._written(*arguments)


@pytest.fixture
def disk(monkeypatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(checkpoint_files, "save_file", disk.save_file)
    return disk


@dataclass(frozen=True)
class WithAPeer(Mesh):
    """The mesh of tower 1's process alone; `failed` has what tower 0's, which agrees at once, says of its part."""

    failed: list[float] = field(default_factory=list)

    def from_main(self, value: int) -> int:
        """How many bytes of metrics there are."""
        return 0

    def sum_over_processes(self, values: Sequence[float]) -> list[float]:
        """A saver's two kinds of agreement: (busy, failed), and at the end the number of problems."""
        peer = [0.0, self.failed.pop(0) if self.failed else 0.0] if len(values) == 2 else [1.0]
        return [mine + theirs for mine, theirs in zip(values, peer, strict=True)]


def saver_of(run_dir: Path, *overrides: str, mesh: Mesh = ALONE) -> tuple[Checkpointer, TrainingState]:
    settings = parse_train_settings(compose("train", [*NARROW, *overrides]))
    claim, lock = lock_run_folder(str(run_dir), "digits", "", ALONE)
    lock.release()
    folder = RunFolder(Path(claim.path), is_main=True)
    folder.begin(claim, 0, "")
    folder.close()
    state = begin(TowerModel(settings.network, mesh.placement, ALONE.link(), seed=0), settings)
    return Checkpointer(settings, mesh, state, folder, {}), state


def trained(state: TrainingState, step: int) -> None:
    """Some steps of an epoch."""
    state.progress.step, state.progress.samples_of_epoch = step, 64


def validated(state: TrainingState, error: float) -> None:
    """The validation at the end of an epoch, the best so far."""
    state.progress.samples_of_epoch = 0
    state.progress.best_error, state.progress.best_checkpoint = error, f"step-{state.progress.step:09d}"


def names(saver_run: Path) -> list[str]:
    return sorted(path.name for path in (saver_run / "checkpoints").iterdir())


def best_while_one_before_is_written(disk: Disk, run: Path, *overrides: str) -> tuple[Checkpointer, TrainingState]:
    """Step 1 validated and saved, step 2 saved, and step 3 validated as better while step 2 was being written."""
    saver, state = saver_of(run, *overrides)
    trained(state, 1)
    validated(state, 0.5)
    saver.save()
    saver.wait()
    trained(state, 2)
    disk.free.clear()
    saver.save()
    trained(state, 3)
    validated(state, 0.25)
    disk.free.set()
    saver.wait()
    return saver, state


def test_a_validated_state_that_is_not_saved_is_not_the_best_even_if_one_before_was_still_being_written(disk, tmp_path):
    saver, state = best_while_one_before_is_written(disk, tmp_path / "run")
    disk.full = True
    saver.save()
    saver.wait()
    assert (state.progress.best_error, state.progress.best_checkpoint) == (0.5, "step-000000001")
    disk.full = False
    trained(state, 4)
    saver.save()
    saver.finish()
    description = newest_checkpoint(tmp_path / "run" / "checkpoints").description
    assert description["progress"]["best_checkpoint"] == "step-000000001"


def test_the_best_is_kept_until_a_better_one_is_saved(disk, tmp_path):
    saver, _ = best_while_one_before_is_written(disk, tmp_path / "run", "keep_checkpoints=1")
    assert names(tmp_path / "run") == ["step-000000001", "step-000000002-unvalidated"]
    saver.save()
    saver.finish()
    assert names(tmp_path / "run") == ["step-000000003"]


def test_a_process_that_has_written_its_part_names_no_checkpoint_that_another_could_not_finish(tmp_path):
    launch = Launch(rank=1, world_size=2, local_rank=1, local_world_size=2)
    mesh = WithAPeer(choose_placement("distributed", "cpu", 2, launch), None)
    saver, state = saver_of(tmp_path / "run", mesh=mesh)
    said = []
    for step, failed in ((1, 0.0), (2, 1.0)):
        trained(state, step)
        saver.save()
        saver._writer._thread.join()
        mesh.failed.append(failed)
        with pytest.raises(NotSaved) as raised:
            saver.finish()
        said.append(str(raised.value))
    assert [words.rpartition("; ")[2] for words in said] == [
        "the newest checkpoint is step-000000001-unvalidated",
        "the newest checkpoint is step-000000001-unvalidated",
    ]
