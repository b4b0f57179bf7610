"""What the newest checkpoint of a run shows: its first kernels, what it takes for what, and examples of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet_mp.analysis.evaluate.ensemble import EnsembleMember, open_member
from alexnet_mp.analysis.evaluate.settings import DataChanges, InputChanges
from alexnet_mp.analysis.figures.kernels import first_layer_kernels
from alexnet_mp.checkpoint.retention import newest_checkpoint
from alexnet_mp.common.rng import keyed_generator
from alexnet_mp.data.dataset import Images, Share
from alexnet_mp.data.loader import Loader
from alexnet_mp.data.preprocessing import Batch, Preprocessing
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.build import build_model
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.table import Network
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.training.validation import Evaluation, evaluate

T = TypeVar("T")

BARS = 5  # as many as the paper's Figure 4 has


@dataclass(frozen=True)
class Wishes:
    """What is asked of an examination: at most `images` of the split that is held out, `examples` of each kind.

    `data` is the pack's folder where that is not where the run had it; `seed` keys the choice of images.
    """

    images: int
    examples: int
    data: str | None
    batch_size: int
    seed: int


@dataclass(frozen=True, eq=False)
class Example:
    """An image as the network saw it, uint8 [height, width, channels], and its most probable classes with their odds.

    `number` is its place in the split, from 0.
    """

    pixels: NDArray[np.uint8]
    number: int
    label: int
    classes: tuple[int, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Seen:
    """What became of `evaluation.errors.images` images of a split that has `of`."""

    evaluation: Evaluation
    class_names: tuple[str, ...]
    data: str
    split: str
    of: int
    right: tuple[Example, ...]
    wrong: tuple[Example, ...]


@dataclass(frozen=True, eq=False)
class Examination:
    """What there is; `missing` says what is not, and why. `kernels` are of every tower, [kernels, channels, h, w]."""

    checkpoint: str | None = None
    network: Network | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    kernels: Sequence[Tensor] = ()
    seen: Seen | None = None
    missing: list[str] = field(default_factory=list)


def examine(folder: Path, wishes: Wishes) -> Examination:
    """Rebuild the model from the newest whole checkpoint in a run's folder, on the CPU, and look at it.

    What cannot be done is said in `missing`, never raised.
    """
    newest = newest_checkpoint(folder / "checkpoints")
    missing = [
        f"{problem}; an older checkpoint is looked at instead, if there is one." for problem in newest.damaged.values()
    ]
    if newest.folder is None:
        missing.append("There is no whole checkpoint; so there are no kernels, no confusions and no examples.")
        return Examination(missing=missing)

    def attempt(do: Callable[[], T], consequence: str) -> T | None:
        try:
            return do()
        except ConfigurationError as error:
            missing.append(f"{error}; so {consequence}.")
            return None

    checkpoint = newest.folder
    progress = newest.description.get("progress")
    found = Examination(checkpoint.name, progress=progress if isinstance(progress, dict) else {}, missing=missing)
    nothing = "there are no kernels, no confusions and no examples"
    member = attempt(
        lambda: open_member(checkpoint, DataChanges(path=wishes.data, verify=False), InputChanges()), nothing
    )
    state = attempt(lambda: member.weights(range(member.network.towers)), nothing) if member else None
    if member is None or state is None:
        return found
    kernels = attempt(lambda: first_layer_kernels(state, member.network.first_layer), "there are no kernels")
    found = replace(found, network=member.network, kernels=kernels or ())
    model = build_model(member.network)
    model.load_state_dict(state)
    seen = attempt(
        lambda: _look(model, member, wishes), "there are no confusions and no examples; data.path=FOLDER names the pack"
    )
    return replace(found, seen=seen)


def _look(model: TowerModel, member: EnsembleMember, wishes: Wishes) -> Seen:
    """Classify the chosen images. Raises ConfigurationError where they are not here, or not those of the training."""
    data = member.load_data()
    if member.class_names and member.class_names != data.class_names:
        raise ConfigurationError(f"{data.name} has other classes than the run was trained on, or in another order")
    split = data.held_out
    images = data.splits[split]
    order = torch.randperm(len(images), generator=keyed_generator(wishes.seed, "report", split))[: wishes.images]
    chosen = replace(data, splits={"train": data.splits["train"], split: _Chosen(images, order.numpy())})
    crop = model.network.image[1:]
    # The loader allows no batch larger than the training split, for the sake of training.
    loader = Loader(chosen, crop, min(wishes.batch_size, len(data.splits["train"])), Share(), seed=0)
    preprocess = Preprocessing(data.statistics, crop, member.input, torch.float32)
    examples = _Examples(order, wishes.examples)
    evaluation = evaluate(
        [model], loader.evaluation(split), preprocess, Mesh(model.placement, None), look=examples.look
    )
    right, wrong = tuple(examples.kept[True]), tuple(examples.kept[False])
    return Seen(evaluation, data.class_names, data.name, split, len(images), right, wrong)


class _Examples:
    """The first images that are taken for what they are, and the first that are not, `wanted` of each in `kept`.

    `order` has the numbers of the images in the order in which they come.
    """

    def __init__(self, order: Tensor, wanted: int) -> None:
        self._numbers = iter(order.tolist())
        self._wanted = wanted
        self.kept: dict[bool, list[Example]] = {True: [], False: []}

    def look(self, batch: Batch, scores: Tensor) -> None:
        """Go through a batch; `scores` are log-probabilities [n, classes]."""
        ordered, classes = scores.sort(dim=1, descending=True, stable=True)
        first = zip(classes[:, :BARS].tolist(), ordered[:, :BARS].exp().tolist(), strict=True)
        for pixels, label, (found, odds) in zip(batch.pixels, batch.labels.tolist(), first, strict=True):
            number, kept = next(self._numbers), self.kept[found[0] == label]
            if len(kept) < self._wanted:
                kept.append(Example(pixels.numpy().copy(), number, label, tuple(found), tuple(odds)))


class _Chosen:
    """Some of a split's images, numbered anew in the order of `rows`."""

    def __init__(self, images: Images, rows: NDArray[np.int64]) -> None:
        self._images = images
        self._rows = rows
        self.labels: NDArray[np.int64] = images.labels[rows]
        self.image_shape = images.image_shape

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, rows: NDArray[Any], out: NDArray[np.uint8]) -> None:
        self._images.read(self._rows[rows], out)

    def forget(self, rows: NDArray[Any]) -> None:
        self._images.forget(self._rows[rows])
