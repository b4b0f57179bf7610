"""What a checkpoint costs: training with one and without, in turns in one run, and a save that training waits for.

`docs/performance.md` has the figures.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from tqdm import tqdm

from alexnet_mp.checkpoint.retention import newest_checkpoint
from alexnet_mp.common.cli import run_command, show
from alexnet_mp.common.host import device_name, file_system, keep_large_blocks, usable_cores, versions
from alexnet_mp.common.schema import PositiveFloat, PositiveInt, from_mapping
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import Network, parse_network
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.mesh import Mesh, open_mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.performance.benchmark.checkpoints_report import Measured, Round, checkpoints_text, summarize_checkpoints
from alexnet_mp.performance.benchmark.saved_training import SavedTraining


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
    folder: str
    seed: int
    timeout_seconds: PositiveFloat
    json: str | None


def parse_checkpoints_settings(configuration: Mapping[str, Any]) -> CheckpointsSettings:
    """Check a composed configuration. Raises ConfigurationError that names the key."""
    network = parse_network(configuration.get("network"))
    settings = from_mapping(CheckpointsSettings, configuration, "", ready={"network": network})
    network_cost(network)  # a window that does not fit is found here, before any process waits for another
    folders = {f"folder={settings.folder}": Path(settings.folder)}
    if settings.json:
        folders[f"json={settings.json}"] = Path(settings.json).absolute().parent
    for setting, folder in folders.items():
        if not folder.is_dir():
            raise ConfigurationError(f"{setting}: there is no folder {folder}")
        if not os.access(folder, os.W_OK):
            raise ConfigurationError(f"{setting}: the folder {folder} cannot be written to")
    return settings


def run(configuration: Mapping[str, Any]) -> None:
    """Measure, print the report, and write it as JSON where `json` says; every process of the launch calls it."""
    keep_large_blocks()
    settings = parse_checkpoints_settings(configuration)
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
    report = {
        **{key: value for key, value in asdict(settings).items() if key != "network"},
        "network": settings.network.name,
        "placement": placement.kind,
        "processes": placement.launch.world_size,
        "machine": {
            "devices": sorted({device_name(device) for device in placement.devices.values()}),
            "cores": usable_cores(),
            "threads": torch.get_num_threads(),
            "disk": disk,
            "load_average_before": load,
            "versions": {**versions(), "safetensors": safetensors.__version__},
        },
        **summarize_checkpoints(measured),
    }
    show(checkpoints_text(report))
    if settings.json:
        Path(settings.json).write_text(json.dumps(report, indent=2) + "\n")


def measure(settings: CheckpointsSettings, mesh: Mesh, folder: Path, about: Mapping[str, Any]) -> Measured:
    """Train and save in `folder`; every process calls it and gets the same. The newest checkpoints are left there.

    Every other round begins with the block without a checkpoint, so that what drifts within a round drifts both ways.
    """
    training = SavedTraining(
        settings.network,
        mesh,
        folder,
        settings.batch_size,
        settings.seed,
        settings.timeout_seconds,
        {"seed": settings.seed, "configuration": dict(about)},
    )
    try:
        for _ in range(settings.warmup_steps):
            training.step()
        first = training.save()
        for _ in range(settings.steps):
            training.step()
        training.written()
        rounds = []
        for number in tqdm(
            range(settings.rounds), unit="round", disable=not (mesh.placement.is_main and sys.stdout.isatty())
        ):
            rounds.append(_round(training, settings.steps, mesh, without_first=number % 2 == 1))
    finally:
        training.close()
    flat = [value for each in rounds for value in astuple(each)]
    *flat, first_held = (max(values) for values in zip(*mesh.gather([*flat, first.seconds]), strict=True))
    width = len(flat) // len(rounds)
    slowest = [Round(*flat[width * number : width * (number + 1)]) for number in range(len(rounds))]
    return Measured(slowest, first_held, _bytes_of_newest(folder))


def _round(training: SavedTraining, steps: int, mesh: Mesh, without_first: bool) -> Round:
    def block_without() -> float:
        mesh.gather([0.0])
        began = training.now()
        for _ in range(steps):
            training.step()
        return training.now() - began

    if without_first:
        without = block_without()
    mesh.gather([0.0])
    began = training.now()
    held = training.save()
    for _ in range(steps):
        training.step()
    with_one = training.now() - began
    written = training.written()
    if not without_first:
        without = block_without()
    mesh.gather([0.0])
    began = training.now()
    training.save()
    training.written()
    synchronous = training.now() - began
    training.step()  # checkpoints are named after their steps, and the next round may begin with one
    return Round(
        with_one=with_one,
        without=without,
        synchronous=synchronous,
        finite=held.finite,
        metrics=held.metrics,
        copy=held.copy,
        written=written.seconds,
        late=float(not written.in_time),
    )


def _bytes_of_newest(folder: Path) -> int:
    newest = newest_checkpoint(folder / "checkpoints")
    assert newest.folder and not newest.damaged, f"checkpoints that were reported as whole are not: {newest}"
    return sum(path.stat().st_size for path in newest.folder.iterdir())


def main() -> None:
    """Entry point of `benchmarks/checkpoints.py`; see `conf/benchmark/checkpoints.yaml` for the keys."""
    run_command("benchmark/checkpoints", run)
