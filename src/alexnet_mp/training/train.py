"""Composes a training run, from the configuration to the summary."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from alexnet_mp.common.device import set_precision
from alexnet_mp.common.host import keep_large_blocks
from alexnet_mp.data.dataset import DataSet, Share
from alexnet_mp.data.load import load_data
from alexnet_mp.data.loader import Loader
from alexnet_mp.data.preprocessing import Preprocessing
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel.link_test import checked_link
from alexnet_mp.parallel.mesh import Mesh, open_mesh
from alexnet_mp.parallel.placement import Placement, choose_placement
from alexnet_mp.parallel.telemetry import open_telemetry
from alexnet_mp.training.checkpointing import Checkpointer
from alexnet_mp.training.compile import choose_kernels
from alexnet_mp.training.config import TrainSettings, parse_train_settings
from alexnet_mp.training.finetune import load_initial_weights
from alexnet_mp.training.log import LOG, console_log
from alexnet_mp.training.resume import begin, log_changes, progress_of_checkpoint, restore
from alexnet_mp.training.run_folder import RunFolder
from alexnet_mp.training.run_lock import RunLock, lock_run_folder
from alexnet_mp.training.signals import noted_signals
from alexnet_mp.training.state import Progress, TrainingState
from alexnet_mp.training.summary import announcement, current_commit, finish, summarize, summary_of_complete
from alexnet_mp.training.trainer import Run, Trainer


@dataclass(frozen=True, eq=False)
class PreparedRun:
    """What a run has before its processes join; `configuration` is what it was told, with the number of classes."""

    configuration: Mapping[str, Any]
    settings: TrainSettings
    placement: Placement
    data: DataSet
    loader: Loader
    preprocess: Preprocessing

    @property
    def text(self) -> str:
        """The configuration as YAML."""
        return OmegaConf.to_yaml(OmegaConf.create(dict(self.configuration)))


def prepare_run(configuration: Mapping[str, Any], classes_of_data: bool = False) -> PreparedRun:
    """Check the configuration and open the data; sets this process's precision and threads, and communicates nothing.

    `classes_of_data`: the network has as many classes as the data, whatever the table says. Raises ConfigurationError
    for what the settings and the data show to be impossible.
    """
    keep_large_blocks()
    settings = parse_train_settings(configuration)
    network = settings.network
    placement = choose_placement(settings.placement, settings.device, network.towers, link=settings.link)
    settings = settings.on_replicas(placement.replicas)
    recipe = settings.recipe
    recipe.check(network.learned_layers, placement.replicas)
    if settings.precision == "tf32" and not placement.on_gpus:
        raise ConfigurationError("precision=tf32 is a mode of GPUs, and the towers are on a CPU; use precision=float32")
    set_precision(settings.precision)
    data = _load_data(settings, placement, None if classes_of_data else network.classes)
    classes = len(data.class_names)
    if classes != network.classes:
        settings = replace(settings, network=replace(network, classes=classes))
        configuration = {**configuration, "network": {**configuration["network"], "classes": classes}}
    loader = _loader(settings, placement, data)
    crop, color = network.image[1:], recipe.augmentation.color
    preprocess = Preprocessing(data.statistics, crop, recipe.input, settings.dtype, color)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    return PreparedRun(configuration, settings, placement, data, loader, preprocess)


def train(configuration: Mapping[str, Any], classes_of_data: bool = False) -> dict[str, Any]:
    """Train as `configuration` says, and return the summary; every process of a run calls it.

    Args:
        configuration: what `conf/train.yaml` composes, as plain values; `alexnet_mp.compose("train", ["seed=1"])`.
        classes_of_data: the network has as many classes as the data, as in the command without `network.classes=`.

    Returns:
        What `summary.json` has: errors as fractions, seconds, bytes, and where the run was written.

    Raises:
        ConfigurationError (a ValueError): in every process, before they join for what the settings alone show to be
            impossible. Stopped, PeerLost, DataLost, NotSaved and FloatingPointError as `Trainer.fit` says.
    """
    run = prepare_run(configuration, classes_of_data)
    configuration, settings, placement = run.configuration, run.settings, run.placement
    data, loader, text = run.data, run.loader, run.text
    if settings.dry_run:
        raise ConfigurationError("dry_run is set, and train would train: call alexnet_mp.performance.dry_run.try_run")
    with console_log(placement.is_main), open_mesh(placement, settings.timeout_seconds, settings.link) as mesh:
        check_agreement(text, data, mesh)
        with _locked(settings, text, mesh) as (lock, folder), open_telemetry(placement) as telemetry:
            progress = progress_of_checkpoint(lock, settings, data)
            complete = summary_of_complete(folder, progress, settings.recipe.epochs, mesh)
            if complete is not None:
                return complete
            _change(folder, mesh, folder.open_log)
            LOG.info("%s", announcement(settings, placement, data, telemetry.words))
            LOG.info("%-10s %s", "run folder", folder.path)
            commit = current_commit()  # before somebody edits the checkout of a long run
            state = _state(settings, configuration, mesh, loader, lock, progress)
            _change(folder, mesh, lambda: folder.begin(lock, progress.step, text))
            about = _about(settings, data, configuration)
            checkpointer = Checkpointer(settings, mesh, state, folder, about, lock.checkpoint)
            with folder.noting_the_end(), noted_signals() as signals:
                parts = (settings, mesh, loader, run.preprocess, state, folder, checkpointer, signals)
                Trainer(Run(*parts, telemetry.metrics)).fit()
            summary = summarize(settings, mesh, state.progress, checkpointer.newest, checkpointer.timing, commit)
            if placement.is_main:
                finish(folder, summary, f"{settings.network.name} on {data.name}")
            return summary


def _state(
    settings: TrainSettings,
    configuration: Mapping[str, Any],
    mesh: Mesh,
    loader: Loader,
    lock: RunLock,
    progress: Progress,
) -> TrainingState:
    """The model on a link that has been tested, and where its training is."""
    network, recipe = settings.network, settings.recipe
    link = checked_link(mesh, network, recipe.batch_size // mesh.placement.replicas)
    model = TowerModel(network, mesh.placement, link, settings.seed, settings.dtype, settings.wire_dtype)
    # All steps of the run, not those that are left: it goes on with the kernels that it began with.
    steps = recipe.epochs * loader.steps_per_epoch
    LOG.info("%-10s %s", "compile", choose_kernels(settings.compile, model, steps, recipe.batch_size, mesh))
    if lock.checkpoint:
        state = restore(lock, progress, model, settings, mesh)
        LOG.info("%-10s from %s, in epoch %d", "going on", lock.checkpoint, state.progress.epoch + 1)
        log_changes(lock, configuration)
        return state
    for line in load_initial_weights(model, settings.initial_weights, recipe.input, mesh):
        LOG.warning("%-10s with the weights of a run whose %s", "begins", line)
    return begin(model, settings)


def _load_data(settings: TrainSettings, placement: Placement, classes: int | None) -> DataSet:
    # One process of a node checks the checksums for all of them.
    verify = settings.data.verify and placement.launch.local_rank == 0
    return load_data(replace(settings.data, verify=verify), settings.network.image, classes)


def _loader(settings: TrainSettings, placement: Placement, data: DataSet) -> Loader:
    recipe = settings.recipe
    return Loader(
        data,
        settings.network.image[1:],
        recipe.batch_size,
        Share(placement.replica, placement.replicas),
        settings.seed,
        recipe.augmentation,
        recipe.order,
        settings.loader,
        pin_memory=placement.on_gpus,
    )


@contextmanager
def _locked(settings: TrainSettings, configuration: str, mesh: Mesh) -> Iterator[tuple[RunLock, RunFolder]]:
    """The folder of this run, new or to go on in; nothing in it is changed yet."""
    lock, held = lock_run_folder(settings.run_dir, settings.experiment_name, configuration, mesh)
    folder = RunFolder(Path(lock.path), mesh.placement.is_main)
    try:
        yield lock, folder
    finally:
        folder.close()
        if held:
            held.release()


def _change(folder: RunFolder, mesh: Mesh, change: Callable[[], None]) -> None:
    """Have the main process change the folder. Raises ConfigurationError, in every process, if it cannot."""
    problem = ""
    try:
        change()
    except OSError as error:
        problem = f"run folder {folder.path}: {error}; the same command goes on when that is mended"
    problem = mesh.text_from_main(problem)
    if problem:
        raise ConfigurationError(problem)


def _about(settings: TrainSettings, data: DataSet, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """What every checkpoint says of its run."""
    return {
        "seed": settings.seed,
        "data": asdict(settings.data),
        "data_fingerprint": data.fingerprint(),
        "class_names": list(data.class_names),
        "input": asdict(settings.recipe.input),
        "configuration": dict(configuration),
    }


def check_agreement(configuration: str, data: DataSet, mesh: Mesh) -> None:
    """Raise ConfigurationError, in every process, if they were not started with the same configuration and data.

    This also makes crossings equal on all towers: network and recipe decide which of them have a backward pass.
    """
    digest = hashlib.blake2b(configuration.encode(), digest_size=7).digest()
    if not mesh.all_equal(int.from_bytes(digest, "big")):
        raise ConfigurationError("the processes of this run have different configurations; start all with the same one")
    if not mesh.all_equal(data.fingerprint()):
        raise ConfigurationError(
            f"the processes of this run have different data in {data.name}; copy one pack to all nodes"
        )
