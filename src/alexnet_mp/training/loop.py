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
from alexnet_mp.data.images import Batches
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

    def __init__(self, model: TowerModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, labels: Tensor, step: int) -> list[Tensor]:
        devices = list(self.model.placement.devices.values())
        logits = self.model.tower_logits(to_towers(images, devices), step)
        return [F.cross_entropy(*pair) for pair in zip(logits, to_towers(labels, devices), strict=True)]


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


def data_parallel(losses: LossOnEveryTower, mesh: Mesh) -> Callable[[Tensor, Tensor, int], list[Tensor]]:
    """The same function, with gradients averaged over the replicas where there are several."""
    group = mesh.replica_group()
    if group is None:
        return losses
    return DistributedDataParallel(losses, process_group=group, gradient_as_bucket_view=True)


def train(settings: TrainSettings, mesh: Mesh, model: TowerModel, batches: Batches, folder: RunFolder) -> Progress:
    """Train `model` for the recipe's epochs, and leave metrics and checkpoints in `folder`."""
    recipe = settings.recipe
    _check_every_parameter_trains(model)
    compute_losses = data_parallel(LossOnEveryTower(model), mesh)
    optimiser = make_optimiser(dict(model.towers.items()), recipe)
    rates = LearningRates(recipe, model.network.weighted_layers)
    progress = Progress()
    bar = tqdm(
        total=recipe.epochs * batches.steps_per_epoch,
        disable=not mesh.placement.is_main,
        unit="step",
        mininterval=0.2 if sys.stderr.isatty() else 5,
        dynamic_ncols=True,
    )
    with bar:
        for epoch in range(recipe.epochs):
            in_force = rates.after(epoch)
            set_learning_rates(optimiser, in_force)
            model.train()
            started = logged = time.perf_counter()
            for batch in batches.training(epoch):
                optimiser.zero_grad()
                losses = compute_losses(batch.images, batch.labels, progress.step)
                torch.autograd.backward(losses)
                optimiser.step()
                progress.step += 1
                progress.samples_seen += recipe.batch_size
                if progress.step == 1 and model.link:
                    progress.crossing_bytes_per_step = model.link.traffic.sent_by(mesh.placement.first_tower)
                if progress.step % settings.log_every_steps == 0:
                    progress.train_loss = _mean_loss(losses, mesh, progress.step)
                    now = time.perf_counter()
                    folder.append(
                        {
                            "kind": "train",
                            "step": progress.step,
                            "epoch": epoch + 1,
                            "loss": progress.train_loss,
                            "learning_rate": max(in_force.values()),
                            "images_per_second": settings.log_every_steps * recipe.batch_size / (now - logged),
                        }
                    )
                    logged = now
                bar.update()
            progress.training_seconds += time.perf_counter() - started
            progress.epoch = epoch + 1
            progress.validation = evaluate(model, batches.validation(), mesh)
            _report_validation(progress, folder, bar)
            if rates.validated(progress.validation.top1_error):
                LOG.info("validation error has stopped falling: learning rates lowered, drop %d", rates.drops)
            _save(progress, settings, model, folder)
    return progress


def _check_every_parameter_trains(model: TowerModel) -> None:
    # A layer frozen on one tower only would leave the other waiting for a gradient that is never sent.
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            raise ConfigurationError(f"{name} has requires_grad=False; freeze a layer by a learning rate of 0 instead")


def _mean_loss(losses: Sequence[Tensor], mesh: Mesh, step: int) -> float:
    total = mesh.sum_over_replicas(losses[0].detach().double().cpu())
    loss = total.item() / mesh.placement.replicas
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss at step {step} is {loss}; lower the learning rate, or see recipe.pixel_divisor"
        )
    return loss


def _report_validation(progress: Progress, folder: RunFolder, bar: "tqdm[Any]") -> None:
    errors = progress.validation
    assert errors is not None
    folder.append(
        {
            "kind": "validation",
            "step": progress.step,
            "epoch": progress.epoch,
            **{key: value for key, value in asdict(errors).items() if key != "images"},
        }
    )
    bar.set_postfix_str(f"epoch {progress.epoch}, validation error {errors.top1_error:.2%}")
    LOG.info(
        "epoch %3d  loss %.4f  validation loss %.4f  top-1 error %.2f %%  top-5 error %.2f %%",
        progress.epoch,
        progress.train_loss,
        errors.loss,
        100 * errors.top1_error,
        100 * errors.top5_error,
    )


def _save(progress: Progress, settings: TrainSettings, model: TowerModel, folder: RunFolder) -> None:
    assert progress.validation is not None
    name = f"step-{progress.step:09d}"
    description = {
        "epoch": progress.epoch,
        "samples_seen": progress.samples_seen,
        "step": progress.step,
        "seed": settings.seed,
        "validation": asdict(progress.validation),
    }
    if model.placement.replica == 0:
        path = folder.checkpoints / name
        save_checkpoint(path, model.state_dict(), model.network, description, settings.timeout_seconds)
    progress.checkpoint = name
    progress.kept = [*progress.kept, name][-settings.keep_checkpoints :]
    if progress.validation.top1_error < progress.best_error:
        progress.best_error, progress.best_checkpoint = progress.validation.top1_error, name
    if model.placement.is_main:
        prune(folder.checkpoints, keep={*progress.kept, progress.best_checkpoint})
