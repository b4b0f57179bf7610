"""The training loop: steps, validation after each epoch, checkpoints."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from alexnet_mp.checkpoint import prune, save_checkpoint
from alexnet_mp.crossing import to_towers
from alexnet_mp.data.loader import Loader
from alexnet_mp.data.preprocessing import Batch, Preprocessing
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.evaluation import Errors, evaluate
from alexnet_mp.mesh import Mesh
from alexnet_mp.model import TowerModel
from alexnet_mp.training.optimiser import make_optimiser, set_learning_rates
from alexnet_mp.training.run_folder import LOG, RunFolder
from alexnet_mp.training.schedule import LearningRates
from alexnet_mp.training.settings import TrainSettings


class LossOnEveryTower(nn.Module):
    """Cross-entropy, averaged over this replica's images, on each local tower from its full logits.

    Every tower of a replica has the same loss; each runs its own backward pass from it, so no gradient of the logits
    has to cross.
    """

    def __init__(self, model: TowerModel, autocast: torch.dtype | None = None) -> None:
        """`autocast`: convolutions and matrix products run in this dtype, the weights stay in their own."""
        super().__init__()
        self.model = model
        self._autocast = autocast

    def forward(self, images: Sequence[Tensor], labels: Sequence[Tensor], step: int) -> list[Tensor]:
        """`images` [n, channels, height, width] and `labels` [n] are the same for every tower, each on its device."""
        with torch.autocast(images[0].device.type, self._autocast, enabled=self._autocast is not None):
            logits = self.model.tower_logits(images, step)
            return [F.cross_entropy(*pair) for pair in zip(logits, labels, strict=True)]


@dataclass
class Progress:
    """How far a run is, and what it has measured."""

    epoch: int = 0
    step: int = 0
    samples_seen: int = 0
    training_seconds: float = 0.0
    train_loss: float = math.nan
    validation: Errors | None = None
    best_error: float = math.inf
    crossing_bytes_per_step: int = 0
    checkpoint: str = ""
    kept: list[str] = field(default_factory=list)
    best_checkpoint: str = ""


def data_parallel(
    losses: LossOnEveryTower, mesh: Mesh
) -> Callable[[Sequence[Tensor], Sequence[Tensor], int], list[Tensor]]:
    """The same function, with gradients averaged over the replicas where there are several."""
    group = mesh.replica_group()
    if group is None:
        return losses
    return DistributedDataParallel(losses, process_group=group, gradient_as_bucket_view=True)


class Trainer:
    """Trains one model as the settings say, epoch by epoch, and leaves metrics and checkpoints in a run folder."""

    def __init__(
        self,
        settings: TrainSettings,
        mesh: Mesh,
        model: TowerModel,
        loader: Loader,
        preprocess: Preprocessing,
        folder: RunFolder,
        gpu_metrics: Callable[[], dict[str, float]] = dict,
    ) -> None:
        _check_every_parameter_trains(model)
        self.progress = Progress()
        self._settings = settings
        self._mesh = mesh
        self._model = model
        self._loader = loader
        self._preprocess = preprocess
        self._folder = folder
        self._gpu_metrics = gpu_metrics
        self._losses = data_parallel(LossOnEveryTower(model, settings.autocast), mesh)
        self._optimiser = make_optimiser(dict(model.towers.items()), settings.recipe)
        self._rates = LearningRates(settings.recipe, model.network.learned_layers)

    def run(self) -> Progress:
        """Train for the recipe's epochs; validate and save a checkpoint after each."""
        epochs = self._settings.recipe.epochs
        with tqdm(
            total=epochs * self._loader.steps_per_epoch,
            disable=not self._mesh.placement.is_main,
            unit="step",
            mininterval=0.2 if sys.stderr.isatty() else 5,
            dynamic_ncols=True,
        ) as bar:
            for epoch in range(epochs):
                self._train_epoch(epoch, bar)
                self._mesh.from_replica_0(
                    list(self._model.buffers())
                )  # running statistics, each replica's own until here
                errors = evaluate([self._model], self._loader.validation(), self._preprocess, self._mesh).errors
                self._validated(errors, bar)
                self._save(errors)
        return self.progress

    def _train_epoch(self, epoch: int, bar: "tqdm[Any]") -> None:
        progress, batch_size = self.progress, self._settings.recipe.batch_size
        in_force = self._rates.after(epoch)
        set_learning_rates(self._optimiser, in_force)
        self._model.train()
        started = logged = time.perf_counter()
        steps_since = 0
        for position, batch in enumerate(self._loader.training(epoch), start=1):
            losses = self._step(batch)
            steps_since += 1
            bar.update()
            if position % self._settings.log_every_steps == 0 or position == self._loader.steps_per_epoch:
                progress.train_loss = _mean_loss(losses, self._mesh, progress.step)
                now = time.perf_counter()
                self._folder.append(
                    {
                        "kind": "train",
                        "step": progress.step,
                        "epoch": epoch + 1,
                        "loss": progress.train_loss,
                        "learning_rate": in_force[self._model.network.learned_layers[-1], "weights"],
                        "images_per_second": steps_since * batch_size / (now - logged),
                        **self._gpu_metrics(),
                    }
                )
                logged, steps_since = now, 0
        progress.training_seconds += time.perf_counter() - started
        progress.epoch = epoch + 1

    def _step(self, batch: Batch) -> list[Tensor]:
        progress, link = self.progress, self._model.link
        self._optimiser.zero_grad()
        devices = list(self._mesh.placement.devices.values())
        images = self._preprocess.on_each(batch, devices)
        losses = self._losses(images, to_towers(batch.labels, devices), progress.step)
        torch.autograd.backward(losses)
        self._optimiser.step()
        progress.step += 1
        progress.samples_seen += self._settings.recipe.batch_size
        if progress.step == 1 and link:
            progress.crossing_bytes_per_step = link.traffic.sent_by(self._mesh.placement.first_tower)
        return losses

    def _validated(self, errors: Errors, bar: "tqdm[Any]") -> None:
        progress = self.progress
        _check_finite(errors.loss, "validation loss", progress.step)
        progress.validation = errors
        record = {key: value for key, value in asdict(errors).items() if key != "images"}
        self._folder.append({"kind": "validation", "step": progress.step, "epoch": progress.epoch, **record})
        bar.set_postfix_str(f"epoch {progress.epoch}, validation error {errors.top1_error:.2%}")
        LOG.info(
            "epoch %3d  loss %.4f  validation loss %.4f  top-1 error %.2f %%  top-5 error %.2f %%",
            progress.epoch,
            progress.train_loss,
            errors.loss,
            100 * errors.top1_error,
            100 * errors.top5_error,
        )
        if self._rates.validated(errors.top1_error):
            LOG.info("validation error has stopped falling: learning rates lowered, drop %d", self._rates.drops)

    def _save(self, errors: Errors) -> None:
        progress, settings, placement = self.progress, self._settings, self._mesh.placement
        name = f"step-{progress.step:09d}"
        description = {
            "epoch": progress.epoch,
            "samples_seen": progress.samples_seen,
            "step": progress.step,
            "seed": settings.seed,
            "data": asdict(settings.data),
            "class_names": list(self._loader.data.class_names),
            "input": asdict(settings.recipe.input),
            "validation": asdict(errors),
        }
        if placement.replica == 0:
            path = self._folder.checkpoints / name
            save_checkpoint(path, self._model.state_dict(), settings.network, description, settings.timeout_seconds)
        progress.checkpoint = name
        progress.kept = [*progress.kept, name][-settings.keep_checkpoints :]
        if errors.top1_error < progress.best_error:
            progress.best_error, progress.best_checkpoint = errors.top1_error, name
        if placement.is_main:
            prune(self._folder.checkpoints, keep={*progress.kept, progress.best_checkpoint})


def _check_every_parameter_trains(model: TowerModel) -> None:
    # A layer frozen on one tower only would leave the other waiting for a gradient that is never sent.
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            raise ConfigurationError(f"{name} has requires_grad=False; freeze a layer by a learning rate of 0 instead")


def _mean_loss(losses: Sequence[Tensor], mesh: Mesh, step: int) -> float:
    total = mesh.sum_over_replicas(losses[0].detach().double().cpu())
    loss = total.item() / mesh.placement.replicas
    _check_finite(loss, "loss", step)
    return loss


def _check_finite(loss: float, name: str, step: int) -> None:
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the {name} at step {step} is {loss}; lower the learning rate, or see recipe.input.pixel_divisor"
        )
