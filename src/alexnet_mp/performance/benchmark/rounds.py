"""Rounds: every variant and the bound have one turn in each, so that a slow spell of the machine hits all."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import lcm
from statistics import median

import torch
from tqdm import tqdm

from alexnet_mp.common.host import usable_cores
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.table import Network
from alexnet_mp.performance.benchmark.calibration import Calibration
from alexnet_mp.performance.benchmark.matrix_bound import MATRIX_BOUND
from alexnet_mp.performance.benchmark.measurement import MatrixWork, Measurement, Task, Turn
from alexnet_mp.performance.benchmark.settings import BenchmarkSettings, Setup
from alexnet_mp.performance.benchmark.turn import VariantFailed, run_turn
from alexnet_mp.performance.benchmark.variants import SPLIT, VARIANTS

_ROUNDS = 3  # if `rounds` is null and they fit in
_MINUTES = 12.0


@dataclass
class SetupTurns:
    """The turns of one setup in order of the rounds; each turn has one entry a process, in order of rank."""

    setup: Setup
    left_out: dict[str, str]
    turns: dict[str, list[Turn[Measurement]]]
    bound: list[Turn[MatrixWork]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # what had no turn any more after one that failed, and why

    def bound_speeds(self) -> list[float]:
        """By round, images a second of a step that consists of its matrix products; one process does all towers'."""
        towers = self.setup.network.towers
        each = [
            max(1, towers // len(turn)) * slowest_seconds(turn) for turn in self.bound
        ]  # a process's towers in turn
        return [self.setup.batch_size / seconds for seconds in each]

    def median_bound(self) -> float | None:
        """None if no turn of the bound was finished."""
        return median(self.bound_speeds()) if self.bound else None


def slowest_seconds(turn: Turn[Measurement] | Turn[MatrixWork]) -> float:
    """Seconds of a step, in the slowest process of a turn."""
    return max(process.step_seconds for process in turn)


def choose_variants(settings: BenchmarkSettings, setup: Setup) -> SetupTurns:
    """The variants that run, and why others do not.

    Raises ConfigurationError for a named one that network or batch do not allow, and if this machine can hold none.
    """
    if setup.processes:
        return SetupTurns(setup, {}, {SPLIT: []})
    found = SetupTurns(setup, {}, {})
    for name in settings.variants or VARIANTS:
        variant = VARIANTS[name]
        try:
            variant.check_devices(setup.network, settings.device)
        except ConfigurationError as error:
            found.left_out[name] = str(error)
            continue
        try:
            variant.check_task(setup.network, variant.processes(setup.network), setup.batch_size)
            found.turns[name] = []
        except ConfigurationError as error:
            if settings.variants:
                raise
            found.left_out[name] = str(error)
    if not found.turns:
        raise ConfigurationError("; ".join(sorted(set(found.left_out.values()))))
    return found


def choose_threads(settings: BenchmarkSettings, measured: Sequence[SetupTurns]) -> int:
    """CPU threads that each variant has in all: the most that every number of processes divides.

    If numbers of processes are compared, those of each process. Raises ConfigurationError if `threads` asks for a
    number that the processes do not divide.
    """
    if settings.processes:
        return settings.threads or 1
    counts = {VARIANTS[name].processes(each.setup.network) for each in measured for name in each.turns}
    share = lcm(*counts, *(each.setup.network.towers for each in measured))
    if settings.threads is None:
        return max(usable_cores() // share, 1) * share
    if settings.threads % share:
        raise ConfigurationError(
            f"threads={settings.threads} cannot be dealt equally to variants of "
            f"{', '.join(map(str, sorted(counts)))} processes; use a multiple of {share}"
        )
    return settings.threads


def run_rounds(settings: BenchmarkSettings, measured: Sequence[SetupTurns], threads: int) -> tuple[int, int]:
    """Measure every setup; return how many rounds there were, and turns that were repeated. Says how far it is.

    Every other round runs backwards, so that what drifts within a round drifts both ways. What fails has no further
    turn, and the others go on. A turn during which the machine was taken is repeated.
    """
    order = _order(measured, threads)
    most = settings.rounds or _ROUNDS
    started, calibration = time.monotonic(), Calibration()
    with tqdm(total=most * len(order), unit="turn", disable=not sys.stdout.isatty(), leave=False) as bar:
        for number in range(1, most + 1):
            for each, name in order if number % 2 else reversed(order):
                where = f"round {number} of {most}, {name}" + (_which(each.setup) if len(measured) > 1 else "")
                if name in each.failed:
                    continue
                bar.set_postfix_str(where)
                try:
                    speed = _undisturbed(calibration, settings, each, name, threads, where)
                    happened = f"{where}: {speed:.4g} images/s"
                except VariantFailed as error:
                    happened = str(error)
                    each.failed[name] = happened.partition("\n")[0]
                bar.write(happened, file=sys.stderr)
                sys.stderr.flush()
                bar.update()
            spent = time.monotonic() - started
            if settings.rounds is None and spent * (number + 1) / number > 60 * _MINUTES:
                return number, calibration.repeated
    return most, calibration.repeated


def _order(measured: Sequence[SetupTurns], threads: int) -> list[tuple[SetupTurns, str]]:
    """The turns of a round. Numbers of processes are compared first, then the bound of those that have a core each."""
    if measured[0].setup.processes is None:
        return [(each, name) for each in measured for name in (*each.turns, MATRIX_BOUND)]
    cores = usable_cores()
    bounds = [each for each in measured if each.setup.processes == 1 or (each.setup.processes or 1) * threads <= cores]
    return [(each, SPLIT) for each in measured] + [(each, MATRIX_BOUND) for each in bounds]


def _undisturbed(
    calibration: Calibration, settings: BenchmarkSettings, measured: SetupTurns, name: str, threads: int, where: str
) -> float:
    """`_run`, repeated up to `settings.repeats` times while the machine is taken before or after it."""
    turns = measured.bound if name == MATRIX_BOUND else measured.turns[name]
    for _ in range(settings.repeats):
        was_taken = calibration.is_taken()
        speed = _run(settings, measured, name, threads, where)
        if not (calibration.is_taken() or was_taken):
            return speed
        turns.pop()
        calibration.repeated += 1
    return _run(settings, measured, name, threads, where)


def _run(settings: BenchmarkSettings, measured: SetupTurns, name: str, threads: int, where: str) -> float:
    """Give one variant, or the bound, its turn; return its images per second."""
    setup, bound = measured.setup, name == MATRIX_BOUND
    processes = setup.processes or (
        _bound_processes(setup.network, settings.device) if bound else VARIANTS[name].processes(setup.network)
    )
    task = Task(
        variant=name,
        network=setup.network,
        batch_size=setup.batch_size // setup.replicas if bound else setup.batch_size,
        steps=settings.steps,
        warmup_steps=settings.warmup_steps,
        compile=settings.compile,
        device="cpu" if setup.processes else settings.device,
        threads=threads if setup.processes else threads // processes,
        seed=settings.seed,
        deadline_seconds=settings.deadline_seconds,
    )
    if bound:
        measured.bound.append(run_turn(task, processes, where, MatrixWork))
        return measured.bound_speeds()[-1]
    measured.turns[name].append(run_turn(task, processes, where, Measurement))
    return setup.batch_size / slowest_seconds(measured.turns[name][-1])


def _bound_processes(network: Network, device: str) -> int:
    """One for each tower, or one for all if the GPUs are fewer."""
    gpus = 0 if device == "cpu" else torch.cuda.device_count()
    return 1 if 0 < gpus < network.towers else network.towers


def _which(setup: Setup) -> str:
    processes = f", processes: {setup.processes}" if setup.processes else ""
    return f", batch {setup.batch_size}, towers: {setup.network.towers}{processes}"
