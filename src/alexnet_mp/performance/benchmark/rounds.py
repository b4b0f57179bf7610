"""Rounds: every variant and the bound have one turn in each, so that a slow spell of the machine hits all."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import lcm

from tqdm import tqdm

from alexnet_mp.common.host import usable_cores
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.performance.benchmark.matrix_bound import MATRIX_BOUND
from alexnet_mp.performance.benchmark.measurement import MatrixWork, Measurement, Task
from alexnet_mp.performance.benchmark.settings import BenchmarkSettings, Setup
from alexnet_mp.performance.benchmark.turn import Turn, run_turn
from alexnet_mp.performance.benchmark.variants import VARIANTS

ROUNDS = 3  # where `rounds` is null, if they fit in
MINUTES = 12.0


@dataclass
class Measured:
    """The turns of one setup in order of the rounds; each turn has one entry a process, in order of rank."""

    setup: Setup
    left_out: dict[str, str]
    turns: dict[str, list[Turn[Measurement]]]
    bound: list[Turn[MatrixWork]] = field(default_factory=list)


def choose_variants(settings: BenchmarkSettings, setup: Setup) -> tuple[list[str], dict[str, str]]:
    """The variants that run, and why others do not. Raises ConfigurationError for a named one that cannot."""
    if settings.variants is not None:
        for name in settings.variants:
            _check(name, settings, setup)
        return list(settings.variants), {}
    able, left_out = [], {}
    for name in VARIANTS:
        try:
            _check(name, settings, setup)
            able.append(name)
        except ConfigurationError as error:
            left_out[name] = str(error)
    if not able:
        raise ConfigurationError("; ".join(sorted(set(left_out.values()))))
    return able, left_out


def total_threads(settings: BenchmarkSettings, measured: Sequence[Measured]) -> int:
    """CPU threads that each variant has in all: the most that every number of processes divides.

    Raises ConfigurationError where `threads` asks for a number that they do not divide.
    """
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


def run_rounds(settings: BenchmarkSettings, measured: Sequence[Measured], threads: int) -> int:
    """Measure every setup, and return how many rounds there were; says on standard error how far it is.

    Every other round runs backwards, so that what drifts within a round drifts both ways.
    """
    order = [(each, name) for each in measured for name in (*each.turns, MATRIX_BOUND)]
    most = settings.rounds or ROUNDS
    started = time.monotonic()
    with tqdm(total=most * len(order), unit="turn", disable=not sys.stdout.isatty(), leave=False) as bar:
        for number in range(1, most + 1):
            for each, name in order if number % 2 else reversed(order):
                where = f"round {number} of {most}, {name}" + _which(each.setup, measured)
                bar.set_postfix_str(where)
                speed = _run(settings, each, name, threads, where)
                bar.write(f"{where}: {speed:.4g} images/s", file=sys.stderr)
                sys.stderr.flush()
                bar.update()
            spent = time.monotonic() - started
            if settings.rounds is None and spent * (number + 1) / number > 60 * MINUTES:
                return number
    return most


def _run(settings: BenchmarkSettings, measured: Measured, name: str, threads: int, where: str) -> float:
    """Give one variant, or the bound, its turn; return its images per second."""
    setup = measured.setup
    bound = name == MATRIX_BOUND
    processes = setup.network.towers if bound else VARIANTS[name].processes(setup.network)
    task = Task(
        variant=name,
        network=setup.network,
        batch_size=setup.batch_size,
        steps=settings.steps,
        warmup_steps=settings.warmup_steps,
        compile=settings.compile,
        device=settings.device,
        threads=threads // processes,
        seed=settings.seed,
        deadline_seconds=settings.deadline_seconds,
    )
    if bound:
        work = run_turn(task, processes, where, MatrixWork.read)
        measured.bound.append(work)
        return setup.batch_size / max(process.step_seconds for process in work)
    turn = run_turn(task, processes, where, Measurement.read)
    measured.turns[name].append(turn)
    return setup.batch_size / max(process.step_seconds for process in turn)


def _which(setup: Setup, measured: Sequence[Measured]) -> str:
    if len(measured) == 1:
        return ""
    return f", batch {setup.batch_size}, towers: {setup.network.towers}"


def _check(name: str, settings: BenchmarkSettings, setup: Setup) -> None:
    variant = VARIANTS[name]
    variant.check(setup.network, settings.device, variant.processes(setup.network), setup.batch_size)
