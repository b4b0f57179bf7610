"""What a checkpoint costs: training with one and without, in turns in one run, and a save that training waits for.

OMP_NUM_THREADS=1 torchrun --nproc-per-node=2 benchmarks/checkpoints.py json=checkpoints.json
python benchmarks/checkpoints.py threads=2


`docs/performance.md` has the figures.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import safetensors
import torch
from checkpoints_report import Round, checkpoints_text, summarize_checkpoints
from tqdm import tqdm

from alexnet_mp.checkpoint.retention import newest_checkpoint
from alexnet_mp.common.cli import compose, run_command
from alexnet_mp.common.host import device_name, file_system, keep_large_blocks, now
from alexnet_mp.common.rng import keyed_generator
from alexnet_mp.common.schema import Bound, OutputFile, PositiveFloat, PositiveInt, from_mapping
from alexnet_mp.data.dataset import DataSet, ImagesInMemory, Share, Statistics
from alexnet_mp.data.loader import Loader
from alexnet_mp.data.preprocessing import InputScale, Preprocessing
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.table import Network
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.mesh import Mesh, open_mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.performance.benchmark.output import machine_values, publish
from alexnet_mp.performance.benchmark.paper_recipe import paper_recipe
from alexnet_mp.training.checkpointing import Checkpointer
from alexnet_mp.training.config import parse_train_settings
from alexnet_mp.training.resume import begin
from alexnet_mp.training.run_folder import RunFolder
from alexnet_mp.training.signals import StopSignals
from alexnet_mp.training.trainer import Run, Trainer


@dataclass(frozen=True)
class CheckpointsSettings:
    """The keys of `conf/benchmark/checkpoints.yaml`, which says what they mean."""

    network: Network
    device: str
    batch_size: PositiveInt
    rounds: PositiveInt
    steps: PositiveInt
    warmup_steps: PositiveInt
    threads: PositiveInt | None
    folder: Annotated[
        str,
        Bound(
            "be a folder that exists and can be written to",
            lambda path: Path(path).is_dir() and os.access(path, os.W_OK),
        ),
    ]
    seed: int
    timeout_seconds: PositiveFloat
    json: OutputFile | None


def run(configuration: Mapping[str, Any]) -> None:
    """Measure, print the report, and write it as JSON where `json` says; every process of the launch calls it."""
    keep_large_blocks()
    settings = from_mapping(CheckpointsSettings, configuration, "")
    load = os.getloadavg()[0]
    kind = "auto" if settings.network.towers > 1 else "simulated"
    placement = choose_placement(kind, settings.device, settings.network.towers, Launch.from_environment())
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with open_mesh(placement, settings.timeout_seconds) as mesh:
        made = tempfile.mkdtemp(prefix="checkpoints-", dir=settings.folder) if placement.is_main else ""
        folder = Path(mesh.text_from_main(made))
        try:
            measured = measure(settings, mesh, folder, configuration)
            disk = file_system(folder)
            mesh.gather([0.0])  # nobody removes what another still looks at
        finally:
            if placement.is_main:
                shutil.rmtree(folder, ignore_errors=True)
    if not placement.is_main:
        return
    machine = machine_values(load, sorted({device_name(device) for device in placement.devices.values()}))
    machine["versions"]["safetensors"] = safetensors.__version__
    report = {
        **vars(settings),
        "network": settings.network.name,
        "placement": placement.kind,
        "processes": placement.launch.world_size,
        "machine": {**machine, "disk": disk},
        **measured,
    }
    publish(report, checkpoints_text(report), settings.json)


class SavedTraining:
    """Training on one batch of random images, by the trainer of real runs; every process calls everything."""

    def __init__(
        self, settings: CheckpointsSettings, mesh: Mesh, folder: Path, configuration: Mapping[str, Any]
    ) -> None:
        network, placement, seed = settings.network, mesh.placement, settings.seed
        count = settings.batch_size * placement.replicas
        # To unit variance, so that no preset's initial weights make the loss overflow; speed does not depend on it.
        recipe = replace(paper_recipe(count), input=InputScale(pixel_divisor=255 / 12**0.5))
        train_settings = replace(
            parse_train_settings(compose("train", [])),
            network=network,
            recipe=recipe,
            seed=seed,
            timeout_seconds=settings.timeout_seconds,
        )
        channels, *size = network.image
        generator = keyed_generator(seed, "benchmark images")
        pixels = torch.randint(256, (count, *size, channels), dtype=torch.uint8, generator=generator)
        labels = torch.randint(network.classes, (count,), generator=generator)
        images = ImagesInMemory(pixels.numpy(), labels.numpy())
        statistics = Statistics(np.full(images.image_shape, 127.5), np.ones(channels), np.eye(channels))
        names = tuple(map(str, range(network.classes)))
        data = DataSet("random", "random images", names, {"train": images, "validation": images}, statistics)
        loader = Loader(data, (size[0], size[1]), count, Share(placement.replica, placement.replicas), seed)
        state = begin(TowerModel(network, placement, mesh.link(), seed), train_settings)
        run_folder = RunFolder(folder, placement.is_main)
        if placement.is_main:
            run_folder.metrics.touch()
        about = {"seed": seed, "configuration": dict(configuration)}
        self.run = Run(
            settings=train_settings,
            mesh=mesh,
            loader=loader,
            preprocess=Preprocessing(data.statistics, (size[0], size[1]), recipe.input, train_settings.dtype),
            state=state,
            folder=run_folder,
            checkpointer=Checkpointer(train_settings, mesh, state, run_folder, about),
            signals=StopSignals(),
        )
        self._trainer = Trainer(self.run)
        self._batch = next(loader.training(0))

    def steps(self, count: int) -> None:
        """So many training steps, each with its line of metrics."""
        for _ in range(count):
            loss = self._trainer.step(self._batch).loss
            self.run.folder.append({"kind": "train", "step": self.run.state.progress.step, "loss": loss})

    def save(self) -> dict[str, float]:
        """Start a checkpoint; the seconds for which that held this process: `finite`, `metrics` and `copy` of Round."""
        timing, began = self.run.checkpointer.timing, self._now()
        before = replace(timing)
        held = self._trainer.save()
        return {
            "finite": self._now() - began - held,
            "metrics": timing.metrics - before.metrics,
            "copy": timing.copy - before.copy,
        }

    def seconds(self, call: Callable[[], object]) -> float:
        """Of a call that all processes begin together."""
        self.run.mesh.gather([0.0])
        began = self._now()
        call()
        return self._now() - began

    def round(self, steps: int, without_first: bool) -> Round:
        """One of each: a block with a checkpoint, one without, and a save that is waited for. Raises NotSaved."""
        checkpointer, held = self.run.checkpointer, dict[str, float]()
        before = checkpointer.timing.writing

        def save_and(then: Callable[[], object]) -> float:
            return self.seconds(lambda: (held.update(self.save()), then()))

        without = self.seconds(lambda: self.steps(steps)) if without_first else 0.0
        with_one = save_and(lambda: self.steps(steps))
        checkpointer.finish()
        written, of_block = checkpointer.timing.writing - before, dict(held)
        without = without or self.seconds(lambda: self.steps(steps))
        synchronous = save_and(checkpointer.finish)
        self.steps(1)  # checkpoints are named after their steps, and the next round may begin with one
        return Round(with_one, without, synchronous, written=written, **of_block)

    def _now(self) -> float:
        return now(list(self.run.mesh.placement.devices.values()))


def measure(
    settings: CheckpointsSettings, mesh: Mesh, folder: Path, configuration: Mapping[str, Any]
) -> dict[str, Any]:
    """Train and save in `folder`; every process calls it and gets the same. The newest checkpoints are left there.

    Every other round begins with the block without a checkpoint, so that what drifts within a round drifts both ways.
    """
    training = SavedTraining(settings, mesh, folder, configuration)
    checkpointer = training.run.checkpointer
    hidden = not (mesh.placement.is_main and sys.stdout.isatty())
    try:
        training.steps(settings.warmup_steps)
        first_held = sum(training.save().values())
        training.steps(settings.steps)
        checkpointer.finish()
        rounds = [
            training.round(settings.steps, without_first=number % 2 == 1)
            for number in tqdm(range(settings.rounds), unit="round", disable=hidden)
        ]
    finally:
        checkpointer.close()
    slowest = np.max(mesh.gather([first_held, *(value for each in rounds for value in astuple(each))]), axis=0)
    newest = newest_checkpoint(training.run.folder.checkpoints)
    assert newest.folder and not newest.damaged, f"checkpoints that were reported as whole are not: {newest}"
    return summarize_checkpoints(
        [Round(*values) for values in slowest[1:].reshape(len(rounds), -1).tolist()],
        float(slowest[0]),
        sum(path.stat().st_size for path in newest.folder.iterdir()),
    )


def main() -> None:
    """Entry point of `benchmarks/checkpoints.py`; see `conf/benchmark/checkpoints.yaml` for the keys."""
    run_command("benchmark/checkpoints", run, of_all_processes=True)


if __name__ == "__main__":
    main()
