"""Resumes a run from a checkpoint: checks that it is the same run, says what has changed, restores its state."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from alexnet_mp.checkpoint.files import load_checkpoint, load_momentum
from alexnet_mp.common.schema import differences, from_mapping
from alexnet_mp.data.dataset import DataSet
from alexnet_mp.errors import ConfigurationError, in_short
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.training.config import TrainSettings
from alexnet_mp.training.log import LOG
from alexnet_mp.training.lr_schedule import LearningRates, PlateauState
from alexnet_mp.training.optimizer import PaperSGD
from alexnet_mp.training.run_lock import RunLock
from alexnet_mp.training.state import Progress, TrainingState


def progress_of_checkpoint(lock: RunLock, settings: TrainSettings, data: DataSet) -> Progress:
    """How far the run is whose folder is locked, by its checkpoint; without one it is at its beginning.

    Raises ConfigurationError if it is of another network, seed or data, or of no training at all. Any placement may
    go on from it, and so may another recipe.
    """
    if not lock.checkpoint:
        return Progress()
    said = lock.description
    different = [
        *differences(said.get("network"), settings.network.to_mapping(), "network"),
        *differences(said.get("seed"), settings.seed, "seed"),
        *differences(said.get("data_fingerprint"), data.fingerprint(), "fingerprint of the data"),
    ]
    if different:
        raise ConfigurationError(
            f"run folder {lock.path} holds another run, at {lock.checkpoint}: {'; '.join(different)}; choose another "
            "run_dir"
        )
    try:
        progress = from_mapping(Progress, said.get("progress"), "progress")
        if min(progress.epoch, progress.samples_of_epoch, progress.samples_seen, progress.step) < 0:
            raise ConfigurationError(f"progress is negative: {progress}")
        int(said["metrics_bytes"])
        return progress
    except (ConfigurationError, LookupError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"run folder {lock.path}: {lock.checkpoint} does not say how far its run was ({error}); choose another "
            "run_dir"
        ) from error


def begin(model: TowerModel, settings: TrainSettings) -> TrainingState:
    """The state of a run before its first step."""
    optimizer = PaperSGD.of(model, settings.recipe)
    rates = LearningRates(settings.recipe, model.network.learned_layers)
    return TrainingState(model, optimizer, rates, Progress())


def restore(lock: RunLock, progress: Progress, model: TowerModel, settings: TrainSettings, mesh: Mesh) -> TrainingState:
    """The state in the locked folder's checkpoint, with the towers of this process; every process of the run calls it.

    Replica 0 reads the files, and the others have theirs from it, so that they need not share its disk. Raises
    ConfigurationError in every process if one cannot read them.
    """
    state, problem = begin(model, settings), ""
    try:
        plateau = from_mapping(PlateauState, lock.description["plateau"], "plateau")
        state = TrainingState(
            model,
            state.optimizer,
            LearningRates(settings.recipe, model.network.learned_layers, plateau),
            progress,
        )
        _read_tensors(lock, state, mesh)
    except (ConfigurationError, RuntimeError, LookupError, TypeError, AttributeError) as error:
        problem = f"cannot go on from {lock.checkpoint} of run folder {lock.path}: {in_short(error)}"
    if mesh.any(bool(problem)):
        raise ConfigurationError(problem or f"{lock.checkpoint} could not be read in another process")
    mesh.from_replica_0(list(model.state_dict().values()))
    mesh.from_replica_0(list(state.momentum().values()))
    return state


def _read_tensors(lock: RunLock, state: TrainingState, mesh: Mesh) -> None:
    learning_rates = {str(group): float(rate) for group, rate in lock.description["momentum_learning_rates"].items()}
    momentum: dict[str, Tensor] = {}
    if mesh.placement.replica == 0:
        folder, towers = Path(lock.path) / "checkpoints" / lock.checkpoint, list(mesh.placement.devices)
        weights, _ = load_checkpoint(folder, towers)
        state.model.load_state_dict(weights)
        momentum = load_momentum(folder, towers)
    state.optimizer.restore(state.parameters(), momentum, learning_rates)


def log_changes(lock: RunLock, configuration: Mapping[str, Any]) -> None:
    """Say which keys of the configuration are not what they were when the checkpoint was written."""
    before = dict(lock.description.get("configuration", {}))
    beside = {"run_dir": None, "dry_run": None}
    for line in differences({**before, **beside}, {**configuration, **beside}, ""):
        LOG.info("%-10s %s", "changed", line)
