"""Training on images in memory, stepped and saved as `training/loop.py` and `training/saving.py` do, part by part."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alexnet_mp.checkpoint.retention import checkpoint_name, prune, remove_unfinished
from alexnet_mp.checkpoint.writer import CheckpointWriter, WriteResult
from alexnet_mp.common.host import now
from alexnet_mp.common.rng import keyed_generator
from alexnet_mp.errors import NotSaved
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.table import Network
from alexnet_mp.parallel.crossing import to_towers
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.performance.benchmark.paper_recipe import paper_recipe
from alexnet_mp.training.loss import LossOnEveryTower, data_parallel
from alexnet_mp.training.lr_schedule import LearningRates
from alexnet_mp.training.nonfinite import nonfinite_state
from alexnet_mp.training.optimizer import make_optimizer
from alexnet_mp.training.run_folder import RunFolder
from alexnet_mp.training.state import Progress, TrainingState

KEPT = 2  # checkpoints, as by default in training


@dataclass(frozen=True)
class Held:
    """Seconds for which one save held a process's training: agreeing that all is finite, metrics, and the copy."""

    finite: float
    metrics: float
    copy: float

    @property
    def seconds(self) -> float:
        return self.finite + self.metrics + self.copy


@dataclass(frozen=True)
class Written:
    """`seconds` the thread took until its process's part, or the whole checkpoint, was on the disk; whether in time."""

    seconds: float
    in_time: bool


class SavedTraining:
    """One process's towers, their steps, and checkpoints of them in a run's folder; every process calls everything."""

    def __init__(
        self,
        network: Network,
        mesh: Mesh,
        folder: Path,
        batch_size: int,
        seed: int,
        timeout_seconds: float,
        about: Mapping[str, Any],
    ) -> None:
        """`about` is what every checkpoint says of its run; `batch_size` is one replica's."""
        placement = mesh.placement
        self._mesh = mesh
        self._devices = list(placement.devices.values())
        self._about = dict(about)
        recipe = paper_recipe(batch_size)
        model = TowerModel(network, placement, mesh.link(), seed)
        rates = LearningRates(recipe, network.learned_layers)
        self.state = TrainingState(model, make_optimizer(dict(model.towers.items()), recipe), rates, Progress())
        self._losses = data_parallel(LossOnEveryTower(model), mesh)
        # Unit variance, so that no preset's initial weights make the loss overflow; speed does not depend on them.
        generator = keyed_generator(seed, "benchmark images", placement.replica)
        self._images = to_towers(torch.randn(batch_size, *network.image, generator=generator), self._devices)
        self._labels = to_towers(torch.randint(network.classes, (batch_size,), generator=generator), self._devices)
        self._batch_size = batch_size * placement.replicas
        self._folder = RunFolder(folder, placement.is_main)
        if placement.is_main:
            self._folder.metrics.touch()
        self._writer = CheckpointWriter(
            self._folder.checkpoints, network, timeout_seconds, self._prune if placement.is_main else None
        )
        self._outcome: WriteResult | None = None

    def step(self) -> None:
        """One training step, with the agreement of all processes that ends it, and its line of metrics."""
        progress = self.state.progress
        self.state.optimizer.zero_grad()
        losses = self._losses(self._images, self._labels, progress.step)
        torch.autograd.backward(losses)
        self._settle()
        share = losses[0].detach().double().item() if self._mesh.placement.first_tower == 0 else 0.0
        *_, loss = self._mesh.sum_over_processes([0.0, 0.0, 0.0, share / self._mesh.placement.replicas])
        self.state.optimizer.step()
        progress.step += 1
        progress.samples_seen += self._batch_size
        progress.train_loss = loss
        self._folder.append({"kind": "train", "step": progress.step, "loss": loss})

    def save(self) -> Held:
        """Start a checkpoint; the one before is on the disk. Raises FloatingPointError where numbers are not finite."""
        began = self.now()
        places = nonfinite_state(self.state.model)
        if any(found for (found,) in self._mesh.gather([float(bool(places))])):
            raise FloatingPointError("the weights are not finite any more; nothing is left to measure")
        self._mesh.sum_over_processes([float(self._writer.is_busy), 0.0])
        finite = self.now()
        placement, metrics_bytes = self._mesh.placement, 0
        name = checkpoint_name(self.state.progress.step, validated=False)
        if placement.is_main:
            remove_unfinished(self._folder.checkpoints)
            metrics_bytes = self._folder.flush_metrics()
        metrics_bytes = self._mesh.from_main(metrics_bytes)
        flushed = self.now()
        self._outcome = None
        if placement.replica == 0:
            self._writer.start(
                name,
                self.state.model.state_dict(),
                self.state.momentum(),
                {**self._about, **self.state.described(), "metrics_bytes": metrics_bytes},
            )
        return Held(finite - began, flushed - finite, self.now() - flushed)

    def written(self) -> Written:
        """Wait until every process is done with the last checkpoint. Raises NotSaved where it is not whole."""
        self._settle()
        in_time, any_failed = not self._writer.is_busy, 0.0
        while True:
            self._settle()
            problem = self._outcome.problem if self._outcome else ""
            busy, failed = self._mesh.sum_over_processes([float(self._writer.is_busy), float(bool(problem))])
            any_failed += failed
            if failed:
                self._writer.abandon()
            if not busy:
                break
            time.sleep(0.002)
        if any_failed:
            raise NotSaved(f"a checkpoint could not be written: {problem or 'see the other process'}")
        return Written(self._outcome.seconds if self._outcome else 0.0, in_time)

    def now(self) -> float:
        """Seconds, once all that was queued on this process's devices is done."""
        return now(self._devices)

    def close(self) -> None:
        """Let what is being written end, without waiting for the other processes."""
        self._writer.close(0.0)

    def _settle(self) -> None:
        self._outcome = self._writer.outcome() or self._outcome

    def _prune(self, name: str) -> None:
        prune(self._folder.checkpoints, KEPT, best="")
