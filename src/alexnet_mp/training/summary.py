"""Says what a run is before it starts, and writes its summary when it has ended."""

import json
import subprocess
from math import sqrt
from pathlib import Path
from typing import Any

import torch

from alexnet_mp.common.host import device_name, peak_device_bytes, versions
from alexnet_mp.common.text import count
from alexnet_mp.data.dataset import DataSet
from alexnet_mp.errors import ConfigurationError, NotSaved
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import Network, load_network
from alexnet_mp.parallel.launch import own_command_line
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.parallel.placement import Placement
from alexnet_mp.training.checkpointing import SaveTiming
from alexnet_mp.training.config import TrainSettings
from alexnet_mp.training.log import LOG
from alexnet_mp.training.metrics import read_metrics
from alexnet_mp.training.run_folder import RunFolder
from alexnet_mp.training.state import Progress


def announcement(settings: TrainSettings, placement: Placement, data: DataSet, nvml: str) -> str:
    """Which network, placement, devices and data a run uses, and what the paper's run would need instead.

    `nvml` is what NVML says of the GPUs, in lines.
    """
    recipe = settings.recipe
    paper = network_cost(load_network("paper"))
    threads = torch.get_num_threads()
    processes = placement.launch.world_size
    devices = sorted({device_name(device) for device in placement.devices.values()})
    lines = {
        "network": _network_in_words(settings.network),
        "placement": placement.in_words(),
        "devices": f"{', '.join(devices)}; {count(processes, 'process', 'es')}, {count(threads, 'CPU thread')} each",
        "NVML": nvml.replace("\n", "\n" + " " * 11),
        "data": data.description,
        "recipe": f"{recipe.name}: {count(recipe.epochs, 'epoch')}, batch {recipe.batch_size}, learning rate "
        f"{recipe.weights.learning_rate:g} (biases {recipe.biases.learning_rate:g}), seed {settings.seed}",
        "batch": _batch_in_words(settings, placement.replicas),
        "the paper": f"trained {paper.parameters:,} parameters on ILSVRC-2012 instead: 1.2 million photographs, "
        "about 90 epochs, five to six days on two GTX 580 with 3 GB each (paper §5)",
    }
    return "\n".join(f"{name:<10} {text}" for name, text in lines.items())


def summarize(
    settings: TrainSettings,
    mesh: Mesh,
    progress: Progress,
    checkpoint: str,
    saves: SaveTiming,
    commit: str | None,
) -> dict[str, Any]:
    """The contents of `summary.json`. Every process calls it, because peak memory is asked of all.

    `commit` is `current_commit()` from when the run began, `saves` what its checkpoints have cost this process.
    """
    placement = mesh.placement
    costs = network_cost(settings.network)
    validation = progress.validation
    assert validation is not None
    return {
        "network": settings.network.name,
        "experiment": settings.experiment_name,
        "placement": placement.kind,
        "world_size": placement.launch.world_size,
        "replicas": placement.replicas,
        "parameters": costs.parameters,
        "parameters_per_tower": costs.parameters_per_tower,
        "steps": progress.step,
        "epochs": progress.epoch,
        "seconds": progress.training_seconds,
        "checkpoint_seconds": {"held_by_checkpoints": saves.held, "writing_checkpoints": saves.writing},
        "images_per_second": progress.samples_seen / progress.training_seconds,
        "train_loss": progress.train_loss,
        "validation_loss": validation.loss,
        "top1_error": validation.top1_error,
        "top5_error": validation.top5_error,
        "crossing_bytes_per_step": progress.crossing_bytes_per_step,
        "peak_memory_bytes_per_tower": _peak_memory_per_tower(mesh),
        "seed": settings.seed,
        "batch_size": settings.recipe.batch_size,
        "batch_scaling": settings.batch_scaling,
        "precision": settings.precision,
        "device": device_name(next(iter(placement.devices.values()))),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "commit": commit,
        "command": own_command_line("launch/train.py", placement.launch, but="run_dir"),
        "checkpoint": checkpoint,
        "best_checkpoint": progress.best_checkpoint,
    }


def summary_of_complete(folder: RunFolder, progress: Progress, epochs: int, mesh: Mesh) -> dict[str, Any] | None:
    """The summary of a run that is complete already; None if there is something left to do."""
    text = ""
    if mesh.placement.is_main and progress.epoch >= epochs:
        try:
            found = folder.summary.read_text("utf-8")
            text = found if json.loads(found)["epochs"] == progress.epoch else ""  # not of when it had fewer
        except (OSError, ValueError, LookupError, TypeError):
            text = ""  # it is written again
    text = mesh.text_from_main(text)
    if not text:
        return None
    LOG.info("complete   %s has all its epochs; recipe.epochs=N trains on, another run_dir anew", folder.path)
    return dict(json.loads(text))


def finish(folder: RunFolder, summary: dict[str, Any], title: str) -> None:
    """Draw the learning curves, write the summary, and say where everything is. Raises NotSaved."""
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


def _batch_in_words(settings: TrainSettings, replicas: int) -> str:
    """How the batch is dealt and by which rule it and the learning rates, those in force, came to be."""
    share = settings.recipe.batch_size // replicas
    rule = {
        "fixed": "the recipe's, and its learning rates, whatever the number of replicas",
        "linear": f"the recipe's {share} and its learning rates times {replicas}",
        "square_root": f"the recipe's {share} times {replicas}, its learning rates and weight decay times "
        f"{sqrt(replicas):.3g}",
    }[settings.batch_scaling]
    dealt = f"{settings.recipe.batch_size} images on {count(replicas, 'replica')}"
    return f"{dealt}, {share} each; batch_scaling={settings.batch_scaling}: {rule}"


def _network_in_words(network: Network) -> str:
    costs = network_cost(network)
    words = (
        f"{network.name}: {network.towers} tower{'s' if network.towers > 1 else ''}, {costs.parameters:,} parameters"
    )
    if network.towers == 1:
        return f"{words}, nothing crosses"
    per_tower = " + ".join(f"{each:,}" for each in costs.parameters_per_tower)
    return (
        f"{words} ({per_tower}), {costs.crossing_floats_forward:,} floats an image cross forward and "
        f"{costs.crossing_floats_backward:,} backward"
    )


def _peak_memory_per_tower(mesh: Mesh) -> list[int]:
    """Peak bytes of the GPU that holds each tower; on CPUs, of its process, which may hold others too.

    Of several replicas the fullest counts: the first one also writes what the run leaves.
    """
    mine = [float(peak_device_bytes(device)) for device in mesh.placement.devices.values()]
    everyone = [int(peak) for process in mesh.gather(mine) for peak in process]  # replica by replica, in tower order
    return [max(everyone[tower :: mesh.placement.towers]) for tower in range(mesh.placement.towers)]


def current_commit() -> str | None:
    """The commit of the checkout that this package runs from, `-dirty` where it has changes; None outside of one."""
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)  # this file may lie in a checkout of something else
        return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return (
        subprocess.run(command, capture_output=True, timeout=10, check=True).stdout.decode("utf-8", "replace").strip()
    )
