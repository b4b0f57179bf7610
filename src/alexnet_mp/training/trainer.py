"""The training loop: steps, validation after each epoch, checkpoints, and a stop that all processes make together."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from alexnet_mp.checkpoint.retention import checkpoint_name
from alexnet_mp.data.loader import Loader
from alexnet_mp.data.preprocessing import Batch, Preprocessing
from alexnet_mp.errors import ConfigurationError, DataLost, PeerLost, Stopped
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel.crossing import to_towers
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.parallel.wait import wait_with_timeout
from alexnet_mp.training.checkpointing import Checkpointer
from alexnet_mp.training.config import TrainSettings
from alexnet_mp.training.log import LOG
from alexnet_mp.training.loss import LossOnEveryTower, averaging_gradients, data_parallel
from alexnet_mp.training.nonfinite import first_nonfinite, nonfinite_state
from alexnet_mp.training.optimizer import set_learning_rates
from alexnet_mp.training.run_folder import RunFolder
from alexnet_mp.training.signals import StopSignals
from alexnet_mp.training.state import TrainingState
from alexnet_mp.training.trace import traced_steps
from alexnet_mp.training.validation import Errors, evaluate

LOG_EVERY_ON_GPUS = 20  # steps, if the configuration does not say; reading a loss makes the host wait for the GPU
SECONDS_TO_ANSWER = 2.0  # after another process was lost, for the others to notice it too


@dataclass(frozen=True, eq=False)
class Run:
    """What a training run is made of. `state` is where it begins, or goes on."""

    settings: TrainSettings
    mesh: Mesh
    loader: Loader
    preprocess: Preprocessing
    state: TrainingState
    folder: RunFolder
    checkpointer: Checkpointer
    signals: StopSignals
    gpu_metrics: Callable[[], dict[str, float]] = dict


@dataclass(frozen=True)
class Agreed:
    """What all processes know at the end of a step. `loss` is the mean over the replicas where it was asked for."""

    stop: bool
    save: bool
    loss: float


class Trainer:
    """Trains one model as the settings say, epoch by epoch, and leaves metrics and checkpoints in a run folder."""

    def __init__(self, run: Run) -> None:
        _check_every_parameter_trains(run.state.model)
        self._run = run
        self._settings, self._mesh, self._loader = run.settings, run.mesh, run.loader
        self._model, self._optimizer, self._progress = run.state.model, run.state.optimizer, run.state.progress
        self._losses = data_parallel(LossOnEveryTower(self._model, run.settings.autocast), run.mesh)
        self._devices = list(run.mesh.placement.devices.values())
        self._reads_every_loss = not run.mesh.placement.on_gpus
        self._batch_size = run.settings.recipe.batch_size
        self._log_every = run.settings.log_every_steps or (1 if self._reads_every_loss else LOG_EVERY_ON_GPUS)

    def fit(self) -> None:
        """Train to the end of the recipe's epochs; validate after each, and save.

        Raises Stopped if a signal asked for it and everything is saved, NotSaved if the last state could not be,
        PeerLost if another process hung or is gone, DataLost if images cannot be read, FloatingPointError if
        numbers are not finite any more.
        """
        epochs = self._settings.recipe.epochs
        try:
            traced = traced_steps(self._settings.profile.steps, self._model, self._run.folder.path)
            with self._progress_bar(epochs) as bar, self._lost_named(), traced as self._step_done:
                while self._progress.epoch < epochs:
                    self._train_epoch(bar)
                    self._validate(bar)
                    self.save()
                self._run.checkpointer.finish()
        finally:
            self._run.checkpointer.close()

    def step(self, batch: Batch) -> Agreed:
        """Forward, backward, the agreement of all processes, and the update."""
        progress, sent_before = self._progress, self._sent()
        self._optimizer.zero_grad()
        images = self._run.preprocess.on_each(batch, self._devices)
        labels = to_towers(batch.labels, self._devices)
        with averaging_gradients(self._mesh):
            losses = self._losses(images, labels, progress.step)
            torch.autograd.backward(losses)
        progress.samples_of_epoch += self._batch_size
        agreed = self._agree(losses, progress.step + 1)
        if not math.isfinite(agreed.loss):
            self._end_of_finite_numbers(agreed.loss, images, progress.step)
        self._optimizer.step()
        progress.step += 1
        progress.samples_seen += self._batch_size
        if self._is_logged():
            progress.train_loss = agreed.loss
        # Of one tower for the whole batch: each replica sends its share's.
        progress.crossing_bytes_per_step = (self._sent() - sent_before) * self._mesh.placement.replicas
        return agreed

    def save(self) -> float:
        """Start a checkpoint; return the seconds that it held the training.

        Excludes the check for numbers that are not finite, which on a GPU also waits for queued training kernels.
        """
        self._await_devices()
        places = nonfinite_state(self._model)
        if self._mesh.any(bool(places)):
            layers = ", ".join(f"{layer} in tower {tower}" for tower, layer in places) or "another process"
            raise FloatingPointError(
                f"after step {self._progress.step} the weights or running statistics of {layers} are not "
                f"finite, so they are not saved{self._advice()}"
            )
        began = time.perf_counter()
        self._run.checkpointer.save()
        return time.perf_counter() - began

    def _train_epoch(self, bar: "tqdm[Any]") -> None:
        progress = self._progress
        in_force = self._run.state.rates.after(progress.epoch)
        set_learning_rates(self._optimizer, in_force)
        last_layer = self._model.network.learned_layers[-1]  # walks the table, so not in every step
        self._model.train()
        last = logged = time.perf_counter()
        steps_since = 0
        for batch in self._loader.training(progress.epoch, progress.samples_of_epoch):
            agreed = self.step(batch)
            self._step_done()
            steps_since += 1
            bar.update()
            now = time.perf_counter()
            progress.training_seconds += now - last
            last = now
            if self._is_logged():
                self._run.folder.append(
                    {
                        "kind": "train",
                        "step": progress.step,
                        "epoch": progress.epoch + 1,
                        "loss": agreed.loss,
                        "learning_rate": in_force[last_layer, "weights"],
                        "images_per_second": steps_since * self._batch_size / (now - logged),
                        **self._run.gpu_metrics(),
                    }
                )
                logged, steps_since = now, 0
            if agreed.stop:
                self._stop()
            if agreed.save:
                held = self.save()
                last, logged = last + held, logged + held  # no step is slower for it

    def _agree(self, losses: Sequence[Tensor], step: int) -> Agreed:
        """One small exchange of all processes a step: who is asked to stop, whether to save, and the loss.

        A loss on a GPU goes in a second exchange, at logged steps: the first needs no GPU, so it finds a process that
        is gone before anybody waits for a GPU that waits for that process.
        """
        checkpointer = self._run.checkpointer
        asked = [float(bool(self._run.signals.received)), checkpointer.is_due(step), checkpointer.has_failed()]
        on_gpu = not self._reads_every_loss
        stop, save, failed, loss = self._mesh.sum_over_processes([*asked, 0.0 if on_gpu else self._share_of(losses)])
        if failed:
            checkpointer.abort()
        if on_gpu and self._is_logged():
            self._await_devices()
            (loss,) = self._mesh.sum_over_processes([self._share_of(losses)])
        return Agreed(bool(stop), bool(save), loss)

    def _share_of(self, losses: Sequence[Tensor]) -> float:
        """What this process adds to the mean loss over the replicas."""
        placement = self._mesh.placement
        return losses[0].detach().double().item() / placement.replicas if placement.first_tower == 0 else 0.0

    def _sent(self) -> int:
        """Bytes that this process's first tower has sent over the crossings."""
        link = self._model.link
        return link.traffic.sent_by(self._mesh.placement.first_tower) if link else 0

    def _await_devices(self) -> None:
        """Before numbers are read from GPUs; see `wait_with_timeout`. One process alone waits for no other."""
        if self._mesh.axes is not None:
            for device in self._devices:
                wait_with_timeout(device, self._settings.timeout_seconds)

    def _is_logged(self) -> bool:
        """True at the steps of which `metrics.jsonl` has a line."""
        position = self._progress.samples_of_epoch // self._batch_size
        return position % self._log_every == 0 or position == self._loader.steps_per_epoch

    def _validate(self, bar: "tqdm[Any]") -> None:
        progress = self._progress
        # Running statistics: since the last step began with replica 0's, each replica has added its own images'.
        self._mesh.from_replica_0(list(self._model.buffers()))
        errors = self._errors_on(self._loader.data.held_out)
        on_training = self._errors_on("train") if self._settings.training_error else None
        progress.finish_epoch(errors, checkpoint_name(progress.step, validated=True))
        for kind, found in (("training", on_training), ("validation", errors)):
            if found:
                record = {key: value for key, value in asdict(found).items() if key != "images"}
                self._run.folder.append({"kind": kind, "step": progress.step, "epoch": progress.epoch, **record})
        bar.set_postfix_str(f"epoch {progress.epoch}, validation error {errors.top1_error:.2%}")
        LOG.info(
            "epoch %3d  loss %.4f  validation loss %.4f  top-1 error %.2f %%  top-5 error %.2f %%",
            progress.epoch,
            math.nan if progress.train_loss is None else progress.train_loss,
            errors.loss,
            100 * errors.top1_error,
            100 * errors.top5_error,
        )
        rates = self._run.state.rates
        if rates.validated(errors.top1_error):
            LOG.info("validation error has stopped falling: learning rates lowered, drop %d", rates.state.drops)

    def _errors_on(self, split: str) -> Errors:
        errors = evaluate([self._model], self._batches_of(split), self._run.preprocess, self._mesh).errors
        if not math.isfinite(errors.loss):
            raise FloatingPointError(
                f"the {'training' if split == 'train' else 'validation'} loss at step {self._progress.step} is "
                f"{errors.loss}{self._advice()}"
            )
        return errors

    def _batches_of(self, split: str) -> Iterator[Batch]:
        """The batches of an evaluation, between which the run can stop; then it is made anew when it goes on."""
        loader = self._loader
        rounds = loader.evaluation_batches(split)
        for batch in loader.validation() if split == loader.data.held_out else loader.evaluation(split):
            yield batch
            rounds -= 1
            self._stop_if_asked()
        for _ in range(rounds):  # a replica whose share is smaller
            self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        (stop,) = self._mesh.sum_over_processes([float(bool(self._run.signals.received))])
        if stop:
            self._stop()

    def _stop(self) -> None:
        step, signal = self._progress.step, self._run.signals.received or "another process"
        LOG.info("asked to stop by %s: saving after step %d", signal, step)
        self.save()
        self._run.checkpointer.finish()
        raise Stopped(
            f"stopped after step {step}, and saved; to go on: the same command, run_dir={self._run.folder.path}"
        )

    def _end_of_finite_numbers(self, loss: float, images: Sequence[Tensor], step: int) -> None:
        where = first_nonfinite(self._model, self._mesh, images, step)
        raise FloatingPointError(f"the loss at step {step + 1} is {loss}: {where}{self._advice()}")

    def _advice(self) -> str:
        self._run.checkpointer.wait()  # for the last good one
        newest = self._mesh.text_from_main(self._run.checkpointer.newest)
        held = f"; the newest checkpoint is {newest}, of before" if newest else ""
        return f"; lower the learning rate, or see recipe.input.pixel_divisor{held}"

    def _progress_bar(self, epochs: int) -> "tqdm[Any]":
        done, rest = self._progress.epoch * self._loader.steps_per_epoch, self._progress.samples_of_epoch
        return tqdm(
            total=epochs * self._loader.steps_per_epoch,
            initial=done + rest // self._batch_size,
            disable=not self._mesh.placement.is_main,
            unit="step",
            mininterval=0.2 if sys.stderr.isatty() else 5,
            dynamic_ncols=True,
        )

    @contextmanager
    def _lost_named(self) -> Iterator[None]:
        """Say after which step a process or images were lost, and which process it was if that can be told."""
        try:
            yield
        except PeerLost as error:
            # Also where it is known who is lost, so that the others do not take this process for lost.
            silent = self._mesh.silent_ranks(0 if error.named else SECONDS_TO_ANSWER)
            who = f"; no answer from rank {', '.join(map(str, silent))}" if silent and not error.named else ""
            raise PeerLost(f"after step {self._progress.step}: {error}{who}") from error
        except ConfigurationError as error:  # of a file that was whole when the run began
            raise DataLost(f"after step {self._progress.step}: {error}") from error


def _check_every_parameter_trains(model: TowerModel) -> None:
    # A layer frozen on one tower only would leave the other waiting for a gradient that is never sent.
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            raise ConfigurationError(f"{name} has requires_grad=False; freeze a layer by a learning rate of 0 instead")
