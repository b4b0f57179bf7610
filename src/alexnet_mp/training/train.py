"""A whole training run, from the composed configuration to the summary."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from tqdm.contrib.logging import logging_redirect_tqdm

from alexnet_mp.common.host import keep_large_blocks
from alexnet_mp.data.dataset import DataSet, Share
from alexnet_mp.data.load import load_data
from alexnet_mp.data.loader import Loader
from alexnet_mp.data.preprocessing import Preprocessing
from alexnet_mp.errors import ConfigurationError, NotSaved
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.link_test import checked_link
from alexnet_mp.parallel.mesh import Mesh, open_mesh
from alexnet_mp.parallel.placement import Placement, choose_placement
from alexnet_mp.parallel.telemetry import open_telemetry
from alexnet_mp.training.checkpointing import Checkpointer
from alexnet_mp.training.compile import choose_kernels
from alexnet_mp.training.config import TrainSettings, parse_train_settings
from alexnet_mp.training.finetune import load_initial_weights
from alexnet_mp.training.metrics import read_metrics
from alexnet_mp.training.resume import begin, log_changes, progress_of_checkpoint, restore
from alexnet_mp.training.run_folder import LOG, RunFolder
from alexnet_mp.training.run_lock import RunLock, lock_run_folder
from alexnet_mp.training.signals import noted_signals
from alexnet_mp.training.state import Progress
from alexnet_mp.training.summary import announcement, current_commit, summarize
from alexnet_mp.training.trainer import Trainer


def run_training(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Train as `configuration` says and return the summary; every process of a run calls it.

    What the settings alone show to be impossible is said before the processes join: ConfigurationError in each.
    """
    keep_large_blocks()
    settings = parse_train_settings(configuration)
    network = settings.network
    placement = choose_placement(settings.placement, settings.device, network.towers, Launch.from_environment())
    settings = settings.on_replicas(placement.replicas)
    recipe = settings.recipe
    recipe.check(network.learned_layers, placement.replicas)
    data = _load_data(settings, placement)
    crop = network.image[1:]
    loader = Loader(
        data,
        crop,
        recipe.batch_size,
        Share(placement.replica, placement.replicas),
        settings.seed,
        recipe.augmentation,
        recipe.order,
        settings.loader,
        pin_memory=any(device.type == "cuda" for device in placement.devices.values()),
    )
    preprocess = Preprocessing(data.statistics, crop, recipe.input, settings.dtype, recipe.augmentation.color)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with _console_log(placement.is_main), open_mesh(placement, settings.timeout_seconds) as mesh:
        text = _as_yaml(configuration)
        check_agreement(text, data, mesh)
        with _locked(settings, text, mesh) as (claim, folder):
            progress = progress_of_checkpoint(claim, settings, data)
            summary = _summary_of_complete(folder, progress, recipe.epochs, mesh)
            if summary is None:
                _prepare(folder, mesh, folder.open_log)
                summary = _train(Run(settings, configuration, mesh, data, loader, preprocess, claim, progress, folder))
    return summary


@dataclass(frozen=True, eq=False)
class Run:
    """What a training run is made of, once its processes have joined and its folder is locked."""

    settings: TrainSettings
    configuration: Mapping[str, Any]
    mesh: Mesh
    data: DataSet
    loader: Loader
    preprocess: Preprocessing
    claim: RunLock
    progress: Progress
    folder: RunFolder


def _train(run: Run) -> dict[str, Any]:
    """Train from the beginning or from the locked checkpoint; return the summary."""
    settings, mesh, folder, claim = run.settings, run.mesh, run.folder, run.claim
    network, recipe, placement = settings.network, settings.recipe, mesh.placement
    with open_telemetry(placement) as telemetry:
        LOG.info("%s", announcement(settings, placement, run.data, telemetry.words))
        LOG.info("%-10s %s", "run folder", folder.path)
        commit = current_commit()  # before somebody edits the checkout of a long run
        link = checked_link(mesh, network, recipe.batch_size // placement.replicas)
        model = TowerModel(network, placement, link, settings.seed, settings.dtype, settings.wire_dtype)
        # All steps of the run, not those that are left: it goes on with the kernels that it began with.
        steps = recipe.epochs * run.loader.steps_per_epoch
        LOG.info("%-10s %s", "compile", choose_kernels(settings.compile, model, steps, recipe.batch_size, mesh))
        if claim.checkpoint:
            state = restore(claim, run.progress, model, settings, mesh)
            LOG.info("%-10s from %s, in epoch %d", "going on", claim.checkpoint, state.progress.epoch + 1)
            log_changes(claim, run.configuration)
        else:
            for line in load_initial_weights(model, settings.initial_weights, recipe.input, mesh):
                LOG.warning("%-10s with the weights of a run whose %s", "begins", line)
            state = begin(model, settings)
        text = _as_yaml(run.configuration)
        _prepare(folder, mesh, lambda: folder.begin(claim, run.progress.step, text))
        about = _about(settings, run.data, run.configuration)
        saver = Checkpointer(settings, mesh, state, folder, about, claim.checkpoint)
        try:
            with noted_signals() as signals:
                Trainer(
                    settings, mesh, state, run.loader, run.preprocess, folder, saver, signals, telemetry.metrics
                ).run()
        except BaseException as error:
            folder.note_end(error)
            raise
        summary = summarize(settings, mesh, state.progress, saver.newest, saver.seconds(), commit)
        if placement.is_main:
            _finish(folder, summary, f"{network.name} on {run.data.name}")
    return summary


@contextmanager
def _locked(settings: TrainSettings, configuration: str, mesh: Mesh) -> Iterator[tuple[RunLock, RunFolder]]:
    """The folder of this run, new or to go on in; nothing in it is changed yet."""
    claim, lock = lock_run_folder(settings.run_dir, settings.experiment_name, configuration, mesh)
    folder = RunFolder(Path(claim.path), mesh.placement.is_main)
    try:
        yield claim, folder
    finally:
        folder.close()
        if lock:
            lock.release()


def _prepare(folder: RunFolder, mesh: Mesh, prepare: Callable[[], None]) -> None:
    """Have the main process change the folder. Raises ConfigurationError, in every process, where it cannot."""
    problem = ""
    try:
        prepare()
    except OSError as error:
        problem = f"run folder {folder.path}: {error}; the same command goes on when that is mended"
    problem = mesh.text_from_main(problem)
    if problem:
        raise ConfigurationError(problem)


def _summary_of_complete(folder: RunFolder, progress: Progress, epochs: int, mesh: Mesh) -> dict[str, Any] | None:
    """The summary of a run that is complete already; None where there is something left to do."""
    text = ""
    if mesh.placement.is_main and progress.epoch >= epochs:
        try:
            found = folder.summary.read_text()
            text = found if json.loads(found)["epochs"] == progress.epoch else ""  # not of when it had fewer
        except (OSError, ValueError, LookupError, TypeError):
            text = ""  # it is written again
    text = mesh.text_from_main(text)
    if not text:
        return None
    LOG.info("complete   %s has all its epochs; recipe.epochs=N trains on, another run_dir anew", folder.path)
    return dict(json.loads(text))


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


def _as_yaml(configuration: Mapping[str, Any]) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(dict(configuration)))


def _load_data(settings: TrainSettings, placement: Placement) -> DataSet:
    # One process of a node checks the checksums for all of them.
    verify = settings.data.verify and placement.launch.local_rank == 0
    return load_data(replace(settings.data, verify=verify), settings.network.image, settings.network.classes)


def check_agreement(configuration: str, data: DataSet, mesh: Mesh) -> None:
    """Raise ConfigurationError, in every process, where they were not started with the same configuration and data.

    This also makes crossings equal on all towers: network and recipe decide which of them have a backward pass.
    """
    digest = hashlib.blake2b(configuration.encode(), digest_size=7).digest()
    if not mesh.all_equal(int.from_bytes(digest, "big")):
        raise ConfigurationError("the processes of this run have different configurations; start all with the same one")
    if not mesh.all_equal(data.fingerprint()):
        raise ConfigurationError(
            f"the processes of this run have different data in {data.name}; copy one pack to all nodes"
        )


def _finish(folder: RunFolder, summary: dict[str, Any], title: str) -> None:
    from alexnet_mp.training.curves import draw_learning_curves  # matplotlib: not before there is something to draw

    try:
        metrics = read_metrics(folder.metrics)
        if metrics.validations:
            draw_learning_curves(metrics, folder.curves, title)
        else:
            LOG.warning("no curves: %s has lost its validations", folder.metrics)
        folder.write_summary(summary)  # the last: with it the run is complete
    except (OSError, ConfigurationError) as error:
        raise NotSaved(
            f"the summary or the curves could not be written: {error}; the same command tries again"
        ) from error
    LOG.info(
        "done: top-1 error %.2f %%, %d steps in %.1f s, %.0f images/s",
        100 * summary["top1_error"],
        summary["steps"],
        summary["seconds"],
        summary["images_per_second"],
    )
    written = {
        "metrics": folder.metrics,
        "summary": folder.summary,
        "curves": folder.curves,
        "checkpoint": folder.checkpoints / summary["checkpoint"],
    }
    for name, path in written.items():
        if path.exists():
            LOG.info("%-10s %s", name, path)


@contextmanager
def _console_log(is_main: bool) -> Iterator[None]:
    """Log to the console from the main process, around the progress bar; leave the logger as it was."""
    level, propagate = LOG.level, LOG.propagate
    LOG.setLevel(logging.INFO if is_main else logging.CRITICAL)
    LOG.propagate = False
    console = logging.StreamHandler()
    LOG.addHandler(console)
    try:
        with logging_redirect_tqdm([LOG]):
            yield
    finally:
        LOG.removeHandler(console)
        LOG.setLevel(level)
        LOG.propagate = propagate
