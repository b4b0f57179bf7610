"""Analyzes the newest checkpoint of a run: its first kernels, and what it predicts of images held out."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet_mp.analysis.evaluate.ensemble import EnsembleMember, open_member
from alexnet_mp.analysis.evaluate.settings import DataChanges, InputChanges
from alexnet_mp.analysis.report.folder import attempt
from alexnet_mp.checkpoint.retention import newest_checkpoint
from alexnet_mp.common.rng import keyed_generator
from alexnet_mp.common.schema import PositiveInt
from alexnet_mp.data.dataset import Share
from alexnet_mp.data.loader import Loader
from alexnet_mp.data.preprocessing import Batch, Preprocessing
from alexnet_mp.model.build import build_model
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.table import Network
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.training.kernel_sheet import first_layer_kernels
from alexnet_mp.training.validation import Evaluation, evaluate

_TOP_CLASSES = 5  # as many bars as the paper's Figure 4 has


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows: at most `images` of the split that is held out, and `examples` of each kind.

    They are classified `batch_size` at a time. `seed` keys the choice of images. `data.path` is the folder of the run's
    pack on this machine; None if it is the same as in training.
    """

    data: DataChanges
    images: PositiveInt
    examples: PositiveInt
    batch_size: PositiveInt
    seed: int


@dataclass(frozen=True, eq=False)
class PredictedImage:
    """An image as the network saw it, uint8 [height, width, channels], its most probable classes and probabilities.

    `number` is its place in the split, from 0.
    """

    pixels: NDArray[np.uint8]
    number: int
    label: int
    classes: tuple[int, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the newest checkpoint predicts of `evaluation.errors.images` images of a split that has `split_images`.

    `right` and `wrong` are the first images that were classified so.
    """

    evaluation: Evaluation
    class_names: tuple[str, ...]
    data: str
    split: str
    split_images: int
    right: tuple[PredictedImage, ...]
    wrong: tuple[PredictedImage, ...]


@dataclass(frozen=True, eq=False)
class CheckpointAnalysis:
    """What a checkpoint shows; `missing` says what it does not, and why.

    `kernels` are of every tower, [kernels, channels, height, width].
    """

    checkpoint: str | None = None
    network: Network | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    kernels: Sequence[Tensor] = ()
    predictions: Predictions | None = None
    missing: list[str] = field(default_factory=list)


def analyze_checkpoint(folder: Path, options: ReportOptions) -> CheckpointAnalysis:
    """Rebuild the model from the newest whole checkpoint in a run's folder, on the CPU, and classify images with it.

    What cannot be done is said in `missing`, never raised.
    """
    newest = newest_checkpoint(folder / "checkpoints")
    instead = "an older checkpoint is looked at instead, if there is one."
    missing = [f"{each}; {instead}" for each in newest.damaged.values()]
    nothing = "there are no kernels, no confusions and no examples"
    checkpoint = newest.folder
    if checkpoint is None:
        return CheckpointAnalysis(missing=[*missing, f"There is no whole checkpoint; so {nothing}."])
    said = newest.description.get("progress")
    found = CheckpointAnalysis(checkpoint.name, progress=said if isinstance(said, dict) else {}, missing=missing)
    changes = replace(options.data, verify=False)
    member = attempt(missing, lambda: open_member(checkpoint, changes, InputChanges()), nothing)
    state = attempt(missing, lambda: member.weights(range(member.network.towers)), nothing) if member else None
    if member is None or state is None:
        return found
    layer = member.network.first_layer
    kernels = attempt(missing, lambda: first_layer_kernels(state, layer), "there are no kernels")
    model = build_model(member.network)
    model.load_state_dict(state)
    without = "there are no confusions and no examples; data.path=FOLDER names the pack"
    predictions = attempt(missing, lambda: _predict(model, member, options), without)
    return replace(found, network=member.network, kernels=kernels or (), predictions=predictions)


def _predict(model: TowerModel, member: EnsembleMember, options: ReportOptions) -> Predictions:
    """Classify the chosen images. Raises ConfigurationError if they are not here, or their classes are others."""
    data = member.load_data()
    member.check_classes(data)
    split = data.held_out
    images = len(data.splits[split])
    order = torch.randperm(images, generator=keyed_generator(options.seed, "report", split))[: options.images]
    crop = model.network.image[1:]
    # The loader allows no batch larger than the training split, for the sake of training.
    loader = Loader(data, crop, min(options.batch_size, len(data.splits["train"])), Share(), seed=0)
    preprocess = Preprocessing(data.statistics, crop, member.input, torch.float32)
    numbers = iter(order.tolist())  # in the order in which the images come
    kept: dict[bool, list[PredictedImage]] = {True: [], False: []}

    def keep_first(batch: Batch, scores: Tensor) -> None:
        """Keep the first images of each kind; `scores` are log-probabilities [n, classes]."""
        ordered, classes = (each[:, :_TOP_CLASSES] for each in scores.sort(dim=1, descending=True, stable=True))
        rows = zip(batch.pixels, batch.labels.tolist(), classes.tolist(), ordered.exp().tolist(), strict=True)
        for pixels, label, best, probabilities in rows:
            number, alike = next(numbers), kept[best[0] == label]
            if len(alike) < options.examples:
                alike.append(PredictedImage(pixels.numpy().copy(), number, label, tuple(best), tuple(probabilities)))

    mesh = Mesh(model.placement, None)
    evaluation = evaluate([model], loader.evaluation(split, rows=order), preprocess, mesh, look=keep_first)
    shown = tuple(kept[True]), tuple(kept[False])
    return Predictions(evaluation, data.names_for_people, data.name, split, images, *shown)
