"""Evaluates checkpoints, from the settings to the errors of every class."""

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from alexnet_mp.analysis.evaluate.ensemble import EnsembleMember, open_ensemble
from alexnet_mp.analysis.evaluate.folder import make_results_folder
from alexnet_mp.analysis.evaluate.settings import EvaluateSettings
from alexnet_mp.common.host import device_name, versions
from alexnet_mp.common.schema import choice
from alexnet_mp.data.dataset import DataSet, Share
from alexnet_mp.data.loader import Loader
from alexnet_mp.data.preprocessing import Batch, Preprocessing
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel.launch import own_command_line
from alexnet_mp.parallel.link_test import checked_link
from alexnet_mp.parallel.mesh import open_mesh
from alexnet_mp.parallel.placement import Placement, choose_placement
from alexnet_mp.training.train import check_agreement
from alexnet_mp.training.validation import Evaluation, evaluate


@dataclass(frozen=True, eq=False)
class CheckpointEvaluation:
    """The results; `summary` is for `summary.json`, `is_main` is True in the one process that prints and writes."""

    is_main: bool
    evaluation: Evaluation
    data: DataSet
    members: list[EnsembleMember]
    summary: dict[str, Any]
    folder: Path


def evaluate_checkpoints(settings: EvaluateSettings) -> CheckpointEvaluation:
    """Evaluate checkpoints as the settings say; every process of a run calls it.

    Whatever is wrong with settings, checkpoints, data and the folder for the results is said before the processes join:
    ConfigurationError. Raises FloatingPointError if the loss is not finite.
    """
    members = open_ensemble(settings)
    network = members[0].network
    placement = choose_placement(settings.placement, settings.device, network.towers, link=settings.link)
    # One process of a node checks the checksums for all of them.
    data = members[0].load_data(verify=members[0].data.verify and placement.launch.local_rank == 0)
    for member in members:
        member.check_classes(data)
    split = data.held_out if settings.split is None else choice(settings.split, data.splits, "split")
    images = len(data.splits[split])
    share = Share(placement.replica, placement.replicas)
    crop = network.image[1:]
    batch_size = min(settings.batch_size, len(data.splits["train"]))  # what the loader allows, for the sake of training
    loader = Loader(data, crop, batch_size, share, seed=0, pin_memory=placement.on_gpus)
    preprocess = Preprocessing(data.statistics, crop, members[0].input, settings.dtype)
    weights = [member.weights(list(placement.devices)) for member in members]
    question = _question(members, data, split, settings.views)
    folder = make_results_folder(settings.out, members[0].folder, question, placement.is_main)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with open_mesh(placement, settings.timeout_seconds, settings.link) as mesh:
        said = [(member.folder.name, member.network, member.data, member.input) for member in members]
        check_agreement(repr((settings, said)), data, mesh)
        models = []
        for member in members:
            link = checked_link(mesh, member.network, max(1, settings.batch_size // placement.replicas))
            model = TowerModel(member.network, placement, link, seed=0, dtype=settings.dtype)
            model.load_state_dict(weights.pop(0))
            models.append(model)
        mine = len(range(share.replica, images, share.replicas))
        batches = with_progress_bar(loader.evaluation(split, settings.views), mine, hidden=not placement.is_main)
        started = time.perf_counter()
        evaluation = evaluate(models, batches, preprocess, mesh)
        seconds = time.perf_counter() - started
    if not math.isfinite(evaluation.errors.loss):
        folders = ", ".join(str(member.folder) for member in members)
        raise FloatingPointError(
            f"the loss on {split} is {evaluation.errors.loss}: weights of {folders} are not finite, or "
            f"input.pixel_divisor={members[0].input.pixel_divisor:g} is not what they were trained with"
        )
    summary = {**question, **asdict(evaluation.errors), **_circumstances(settings, placement, seconds, images)}
    return CheckpointEvaluation(placement.is_main, evaluation, data, members, summary, folder)


def _question(members: list[EnsembleMember], data: DataSet, split: str, views: int) -> dict[str, Any]:
    """What was asked, as plain values; the results of equal questions may replace each other."""
    source, path = members[0].data.source, members[0].data.path
    return {
        "network": members[0].network.name if len(members) == 1 else [member.network.name for member in members],
        "checkpoints": [str(member.folder) for member in members],
        "data": {"name": data.name, "source": source, "path": None if path is None else str(Path(path).absolute())},
        "input": asdict(members[0].input),
        "split": split,
        "views": views,
    }


def _circumstances(settings: EvaluateSettings, placement: Placement, seconds: float, images: int) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "images_per_second": images / seconds,
        "placement": placement.kind,
        "world_size": placement.launch.world_size,
        "replicas": placement.replicas,
        "batch_size": settings.batch_size,
        "precision": settings.precision,
        "device": device_name(next(iter(placement.devices.values()))),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "command": own_command_line("launch/evaluate.py", placement.launch, but="out"),
    }


def with_progress_bar(batches: Iterator[Batch], images: int, hidden: bool = False) -> Iterator[Batch]:
    """The batches, with a bar on standard error that counts their images."""
    interval = 0.2 if sys.stderr.isatty() else 5
    with tqdm(total=images, disable=hidden, unit="image", mininterval=interval, dynamic_ncols=True) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch.labels))
