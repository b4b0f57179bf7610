"""What was measured as plain values for JSON: medians over the rounds, and each variant as a part of the bound."""

from collections.abc import Callable, Sequence
from operator import itemgetter, truediv
from statistics import median
from typing import Any

from alexnet_mp.parallel.links import Direction
from alexnet_mp.performance.benchmark.measurement import Measurement, Turn
from alexnet_mp.performance.benchmark.output import machine_values, relative_spread
from alexnet_mp.performance.benchmark.rounds import SetupTurns
from alexnet_mp.performance.benchmark.settings import BenchmarkSettings
from alexnet_mp.performance.benchmark.timed_link import Place, Waiting, added, waiting


def about_the_run(
    settings: BenchmarkSettings, measured: Sequence[SetupTurns], counts: dict[str, int], threads: int, load: float
) -> dict[str, Any]:
    """What holds for every setup of a run: its settings, and the machine."""
    devices = {name for each in measured for turns in each.turns.values() for turn in turns for name in turn[0].devices}
    kept = ("steps", "warmup_steps", "compile", "seed")
    about = {**counts, **{name: getattr(settings, name) for name in kept}}
    return {**about, "machine": machine_values(load, sorted(devices), threads)}


def summarize_variants(measured: Sequence[SetupTurns], about: dict[str, Any]) -> dict[str, Any]:
    """The first setup's values; with several setups, `sweep` beside them holds the values of every one of them.

    `matrix_bound_images_per_second` is the median over the rounds of the speed at which a step would run if it
    consisted of its matrix products (see `matrix_bound.py`), and `matrix_bound` has its seconds by product; both are
    null if it failed. `left_out` says why a variant has no turns, or no more than it has. For each variant:

    `images_per_second` is the median over the rounds, `spread` (max - min) / median, and `fraction_of_bound` its part
    of the bound, which is of the table's own network: `ungrouped` and `one_column` have other work.
    `step_seconds` are medians over the rounds for the slowest process, in seconds a step: `forward` and `backward`
    without the waits that follow them; `exposed_crossing`, the wait at crossings after all towers had posted; `skew`,
    the wait there before that; `optimizer`. A pipeline does both passes at once: its `forward` and `backward` are
    null; `forward_and_backward` has both for every variant, waits included.
    `exposed_crossing_fraction` and `skew_fraction` are the worst tower's parts of its step, and `crossings` has both in
    seconds and fractions for every crossing and direction; null where nothing crosses.
    `peak_memory_bytes` is the fullest process's in any round (see `Measurement`).
    Bytes are of a step. `crossing_bytes_per_step`: what one tower sends, counted, with the table's minimum in
    `table_crossing_bytes_per_step`. `all_reduce_bytes_per_step`: the gradients that a data-parallel process reduces,
    counted, with what it sends for that in a ring, 2 (n - 1) / n times as much. `pipeline_bytes_per_step`: what the
    part of a pipeline that sends most sends.
    `parts_of_a_step` has seconds of the slowest process by kind of operation (`step_parts.py`), of one more step with
    the profiler on; null on GPUs.
    `joules_per_image` is of all devices together; null where devices do not tell.
    """
    values = [{**_setup(each), **about} for each in measured]
    return values[0] if len(values) == 1 else {**values[0], "sweep": values}


def _setup(measured: SetupTurns) -> dict[str, Any]:
    network, batch_size = measured.setup.network, measured.setup.batch_size
    bounds, bound = measured.bound_speeds(), measured.median_bound()
    turns = {name: turns for name, turns in measured.turns.items() if turns}
    return {
        "network": network.name,
        "image": list(network.image),
        "towers": network.towers,
        "batch_size": batch_size,
        "matrix_bound_images_per_second": bound,
        "matrix_bound": None
        if bound is None
        else {
            "spread": relative_spread(bounds),
            "images_per_second_of_rounds": bounds,
            "seconds": {
                name: median(process.seconds[name] for turn in measured.bound for process in turn)
                for name in measured.bound[0][0].seconds
            },
            "ways": measured.bound[0][0].ways,
        },
        "variants": {name: variant_values(batch_size, each, bound) for name, each in turns.items()},
        "left_out": measured.left_out | measured.failed,
    }


def variant_values(
    batch_size: int, turns: list[Turn[Measurement]], bound: float | None, per_replica: int | None = None
) -> dict[str, Any]:
    """What `summarize_variants` says of one variant; `bound` is in images a second, None if it was not measured.

    Of its processes, in order, so many hold one replica and wait for each other at crossings; null: all of them wait,
    and where they sum gradients each is a replica.
    """
    ranks = range(len(turns[0]))
    slowest = [max(ranks, key=lambda rank: turn[rank].step_seconds) for turn in turns]
    speeds = [batch_size / turn[rank].step_seconds for turn, rank in zip(turns, slowest, strict=True)]
    peaks = [max(turn[rank].peak_memory_bytes for turn in turns) for rank in ranks]
    members = len(ranks) // (per_replica or 1)
    waits = [_waiting(turn, per_replica or len(ranks)) for turn in turns]
    parts = [
        _parts(turn[rank], wait[rank] if wait else {}) for turn, rank, wait in zip(turns, slowest, waits, strict=True)
    ]
    first = turns[0]
    crossing, reduced, pipeline = (
        max(getattr(process.sent, what) for process in first) for what in ("crossing", "all_reduced", "pipeline")
    )
    joules = [sum(process.joules_per_step or 0.0 for process in turn) / batch_size for turn in turns]
    return {
        "images_per_second": median(speeds),
        "spread": relative_spread(speeds),
        "images_per_second_of_rounds": speeds,
        "fraction_of_bound": median(speeds) / bound if bound else None,
        "step_seconds": {
            part: None if parts[0][part] is None else median(p[part] or 0.0 for p in parts) for part in parts[0]
        },
        "parts_of_a_step": _median_parts([turn[rank].parts for turn, rank in zip(turns, slowest, strict=True)]),
        "processes": len(ranks),
        "threads_per_process": first[0].threads,
        "peak_memory_bytes": max(peaks),
        "peak_memory_bytes_per_process": peaks,
        "parameters_per_process": [process.parameters for process in first],
        "crossing_bytes_per_step": crossing,
        "table_crossing_bytes_per_step": first[0].table_crossing_bytes,
        "all_reduce_bytes_per_step": reduced,
        "all_reduce_bytes_sent_in_a_ring": reduced * 2 * (members - 1) // members,
        "pipeline_bytes_per_step": pipeline,
        **_crossings(turns, waits),
        "joules_per_image": median(joules) if all(p.joules_per_step is not None for t in turns for p in t) else None,
    }


def _median_parts(rounds: Sequence[dict[str, float] | None]) -> dict[str, float] | None:
    known = [parts for parts in rounds if parts]
    return {kind: median(parts[kind] for parts in known) for kind in known[0]} if known else None


_Waits = list[dict[Place, Waiting]]  # for each process, in seconds a step


def _waiting(turn: Turn[Measurement], per_replica: int) -> _Waits | None:
    exchanges = [process.exchanges for process in turn if process.exchanges is not None]
    if len(exchanges) < len(turn):
        return None
    replicas = [exchanges[first : first + per_replica] for first in range(0, len(turn), per_replica)]
    return [
        {place: waits.divided_by(turn[0].steps) for place, waits in process.items()}
        for replica in replicas
        for process in waiting(replica)
    ]


def _parts(process: Measurement, waits: dict[Place, Waiting]) -> dict[str, float | None]:
    directions: tuple[Direction, ...] = ("forward", "backward")
    forward, backward = (added(wait for (_, to), wait in waits.items() if to == each) for each in directions)
    return {
        "forward": None if process.together else process.forward_seconds - forward.exposed - forward.skew,
        "backward": None if process.together else process.backward_seconds - backward.exposed - backward.skew,
        "forward_and_backward": process.forward_seconds + process.backward_seconds,
        "exposed_crossing": forward.exposed + backward.exposed,
        "skew": forward.skew + backward.skew,
        "optimizer": process.optimizer_seconds,
    }


def _crossings(turns: list[Turn[Measurement]], waits: list[_Waits | None]) -> dict[str, Any]:
    """The worst tower's waits, medians over the rounds: in all, and by crossing and direction."""
    known = [wait for wait in waits if wait is not None]
    if len(known) < len(waits):
        return {"exposed_crossing_fraction": None, "skew_fraction": None, "crossings": None}

    def worst(of: Callable[[dict[Place, Waiting]], Waiting]) -> dict[str, float]:
        """In seconds, and as fractions of the tower's own step."""
        found = {}
        for number, kind in enumerate(Waiting._fields):
            seconds = [[of(w)[number] for w in wait] for wait in known]
            steps = [[process.step_seconds for process in turn] for turn in turns]
            found[f"{kind}_seconds"] = median(map(max, seconds))
            found[f"{kind}_fraction"] = median(max(map(truediv, *each)) for each in zip(seconds, steps, strict=True))
        return found

    crossings: dict[str, dict[str, dict[str, float]]] = {}
    for place in known[0][0]:
        crossings.setdefault(place[0], {})[place[1]] = worst(itemgetter(place))
    of_all = worst(lambda waits: added(waits.values()))
    fractions = {"exposed_crossing_fraction": of_all["exposed_fraction"], "skew_fraction": of_all["skew_fraction"]}
    return {**fractions, "crossings": crossings}
