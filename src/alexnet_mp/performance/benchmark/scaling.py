"""What more processes bring on the cores of a processor: one with all towers, one a tower, several replicas; in turns.

`docs/scaling.md` has the figures.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

from tqdm import tqdm

from alexnet_mp.common.cli import run_command
from alexnet_mp.common.host import usable_cores
from alexnet_mp.common.schema import PositiveInt, from_mapping
from alexnet_mp.common.text import aligned
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.table import Network, parse_network
from alexnet_mp.performance.benchmark.interleaved import cpu_of_the_report
from alexnet_mp.performance.benchmark.matrix_bound import MATRIX_BOUND
from alexnet_mp.performance.benchmark.measurement import MatrixWork, Measurement, Task
from alexnet_mp.performance.benchmark.summary import variant_values
from alexnet_mp.performance.benchmark.turn import Turn, VariantFailed, run_turn
from alexnet_mp.performance.benchmark.variants import SPLIT
from alexnet_mp.performance.cost_model.hardware import Hardware as Device
from alexnet_mp.performance.cost_model.hardware import load_hardware as load_device
from alexnet_mp.performance.cost_model.prediction import Prediction, predict
from alexnet_mp.performance.cost_model.replicas import Layout


@dataclass(frozen=True)
class ScalingSettings:
    """The keys of `conf/scaling.yaml`, which says what they mean."""

    network: Network
    processes: tuple[int, ...]
    batch_size: PositiveInt
    batch_scaling: Literal["fixed", "linear"]
    device: str | None
    rounds: PositiveInt
    steps: PositiveInt
    warmup_steps: int
    compile: bool
    threads: PositiveInt
    seed: int
    deadline_seconds: float
    json: str | None

    def replicas(self, processes: int) -> int:
        return max(1, processes // self.network.towers)

    def batch(self, processes: int) -> int:
        """The global batch of so many processes."""
        return self.batch_size * (self.replicas(processes) if self.batch_scaling == "linear" else 1)

    def task(self, name: str, batch_size: int) -> Task:
        return Task(
            variant=name,
            network=self.network,
            batch_size=batch_size,
            steps=self.steps,
            warmup_steps=self.warmup_steps,
            compile=self.compile,
            device="cpu",
            threads=self.threads,
            seed=self.seed,
            deadline_seconds=self.deadline_seconds,
        )


@dataclass
class Turns:
    """What so many processes did, round by round: the training, and the matrix products of it alone."""

    trained: list[Turn[Measurement]]
    products: list[Turn[MatrixWork]]


def parse_scaling_settings(configuration: Mapping[str, Any]) -> ScalingSettings:
    """Check a composed configuration. Raises ConfigurationError that names the key."""
    network = parse_network(configuration.get("network"))
    settings = from_mapping(ScalingSettings, configuration, "", ready={"network": network})
    if not settings.processes or settings.processes[0] != 1 or len(set(settings.processes)) < len(settings.processes):
        raise ConfigurationError(f"processes is {list(settings.processes)}; begin with 1, to compare with, each once")
    for count in settings.processes:
        if count != 1 and (count < 1 or count % network.towers):
            raise ConfigurationError(
                f"{count} processes cannot hold replicas of {network.towers} towers, one each; use 1 or multiples"
            )
        if settings.batch(count) % settings.replicas(count):
            raise ConfigurationError(
                f"batch_size={settings.batch_size} cannot be shared equally by {settings.replicas(count)} replicas"
            )
    if settings.json and not Path(settings.json).absolute().parent.is_dir():
        raise ConfigurationError(f"json={settings.json}: there is no folder {Path(settings.json).absolute().parent}")
    return settings


def run(configuration: Mapping[str, Any]) -> None:
    """Measure, print a line for each number of processes, and write the same as JSON where `json` says."""
    settings = parse_scaling_settings(configuration)
    device = load_device(settings.device) if settings.device else None
    load = os.getloadavg()[0]
    turns = _measure(settings)
    report = {
        "network": settings.network.name,
        "batch_scaling": settings.batch_scaling,
        "rounds": settings.rounds,
        "steps": settings.steps,
        "warmup_steps": settings.warmup_steps,
        "compile": settings.compile,
        "seed": settings.seed,
        "described_as": settings.device,
        "machine": {
            **cpu_of_the_report(),
            "threads": settings.threads,
            "cores": usable_cores(),
            "load_average_before": load,
        },
        "processes": summarize(settings, turns, device),
    }
    print(as_text(report))
    if settings.json:
        Path(settings.json).write_text(json.dumps(report, indent=2) + "\n")


def _measure(settings: ScalingSettings) -> dict[int, Turns]:
    """Every other round runs backwards, so that what drifts within a round drifts both ways."""
    turns = {count: Turns([], []) for count in settings.processes}
    order = [(count, SPLIT) for count in settings.processes]
    order += [(count, MATRIX_BOUND) for count in settings.processes if _has_cores(settings, count)]
    for number in tqdm(range(settings.rounds), unit="round", disable=not sys.stdout.isatty()):
        for count, name in reversed(order) if number % 2 else order:
            where = f"round {number + 1} of {settings.rounds}, {count} processes, {name}"
            if name == SPLIT:
                task = settings.task(name, settings.batch(count))
                turns[count].trained.append(run_turn(task, count, where, Measurement.read))
            else:
                task = settings.task(name, settings.batch(count) // settings.replicas(count))
                turns[count].products.append(run_turn(task, count, where, MatrixWork.read))
    return turns


def _has_cores(settings: ScalingSettings, count: int) -> bool:
    return count == 1 or count * settings.threads <= usable_cores()


def summarize(settings: ScalingSettings, turns: Mapping[int, Turns], device: Device | None) -> list[dict[str, Any]]:
    """For each number of processes, in order; images a second are of all replicas together, medians over the rounds.

    `matrix_bound_images_per_second`: the speed of a step that consists of its matrix products, done by as many
    processes at the same moment; where they are more than the cores, that of the most with a core each, since a product
    that takes less than the kernel's time slice says nothing of sharing. `efficiency` compares, round by round, with
    one process times the cores in use: the number of processes times their threads, or all cores where those are fewer.
    `fractions_of_a_step`: `products`, by the bound; `update`, `crossings` (exposed) and `late_towers` as measured;
    `rest`, what remains: elementwise rows, and, of several replicas, summing gradients and waiting for each other.
    Other values are those of `benchmark/summary.py`. Where a device is described, the cost model's prediction stands
    beside, with its error.
    """
    cores = usable_cores()
    alone: list[float] = []
    bounds: list[float] = []
    values = []
    for count in settings.processes:
        batch, replicas = settings.batch(count), settings.replicas(count)
        towers_of_a_process = settings.network.towers if count == 1 else 1
        if turns[count].products:
            seconds = [max(process.step_seconds for process in turn) for turn in turns[count].products]
            bounds = [batch / (towers_of_a_process * each) for each in seconds]
        bound = median(bounds)
        per_replica = count // replicas
        found = variant_values(batch, turns[count].trained, bound, per_replica)
        speeds = found["images_per_second_of_rounds"]
        alone = alone or speeds
        used = min(count * settings.threads, cores) / min(settings.threads, cores)
        ratios = [speed / one for speed, one in zip(speeds, alone, strict=True)]
        step = batch / found["images_per_second"]
        parts = {
            "products": found["fraction_of_bound"],
            "update": found["step_seconds"]["optimizer"] / step,
            "crossings": found["step_seconds"]["exposed_crossing"] / step,
            "late_towers": found["step_seconds"]["skew"] / step,
        }
        values.append(
            {
                **found,
                "replicas": replicas,
                "batch_size": batch,
                "matrix_bound_images_per_second": bound,
                "matrix_bound_of_rounds": bounds,
                "times_one_process": median(ratios),
                "efficiency": median(ratios) / used,
                "efficiency_of_rounds": [ratio / used for ratio in ratios],
                "fractions_of_a_step": {**parts, "rest": 1 - sum(parts.values())},
                **(_predicted(settings, device, count, found["images_per_second"]) if device else {}),
            }
        )
    return values


def _predicted(settings: ScalingSettings, device: Device, processes: int, measured: float) -> dict[str, Any]:
    prediction = _prediction(settings, device, processes)
    return {
        "predicted_images_per_second": prediction.images_per_second,
        "prediction_error": prediction.images_per_second / measured - 1,
    }


def _prediction(settings: ScalingSettings, device: Device, processes: int) -> Prediction:
    """Of processes with one thread: one alone has one core, and not all as `launch/plan.py` takes it."""
    network, batch = settings.network, settings.batch(processes)
    if processes == 1:
        return predict(network, replace(device, one_process=None), batch).predictions["single"]
    layout = Layout(settings.replicas(processes))
    way: Literal["split", "data_parallel"] = "split" if network.towers > 1 else "data_parallel"
    return predict(network, device, batch, layout=layout).predictions[way]


def as_text(report: Mapping[str, Any]) -> str:
    """The report for a terminal."""
    machine, values = report["machine"], report["processes"]
    software = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    predicted = "predicted_images_per_second" in values[0]
    head = ["processes x threads", "replicas", "batch", "images/s", "spread", "times one", "efficiency", "bound"]
    head += ["of bound", "sent MB", *(["predicted", "error"] if predicted else [])]
    rows = [head, *(_row(each, predicted) for each in values)]
    lines = [
        f"{machine['device']}; {machine['cores']} cores, load average before the start "
        f"{machine['load_average_before']:.1f}; {software}",
        f"{report['network']}, batch_scaling={report['batch_scaling']}; rounds: {report['rounds']}, steps in each: "
        f"{report['steps']}, after {report['warmup_steps']} to warm up; seed {report['seed']}",
        "",
        *aligned(rows),
        "",
    ]
    for each in values:
        parts = (f"{name.replace('_', ' ')} {part:.1%}" for name, part in each["fractions_of_a_step"].items())
        lines.append(f"a step of {each['processes']}: {', '.join(parts)}")
    lines += [
        "Efficiency: to one process times the cores in use. Bound: images/s of the matrix products of a step alone, by",
        "as many processes at once as have a core each. Sent: by a process in a step; crossings, gradients in a ring.",
    ]
    return "\n".join(lines)


def _row(values: Mapping[str, Any], predicted: bool) -> list[str]:
    sent = values["crossing_bytes_per_step"] * (values["processes"] > 1) + values["all_reduce_bytes_sent_in_a_ring"]
    row = [
        f"{values['processes']} x {values['threads_per_process']}",
        str(values["replicas"]),
        str(values["batch_size"]),
        f"{values['images_per_second']:.4g}",
        f"{values['spread']:.0%}",
        f"{values['times_one_process']:.2f}",
        f"{values['efficiency']:.0%}",
        f"{values['matrix_bound_images_per_second']:.4g}",
        f"{values['fraction_of_bound']:.0%}",
        f"{sent / 1e6:,.1f}",
    ]
    if predicted:
        row += [f"{values['predicted_images_per_second']:.4g}", f"{values['prediction_error']:+.0%}"]
    return row


def main() -> None:
    """Entry point of `benchmarks/scaling.py`; see `conf/scaling.yaml` for the keys."""
    try:
        run_command("scaling", run)
    except VariantFailed as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
