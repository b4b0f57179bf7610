"""What more processes bring: efficiency to one process, the parts of a step, and the cost model's prediction beside.

`docs/scaling.md` has the figures.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any, Literal

from alexnet_mp.common.host import usable_cores
from alexnet_mp.performance.benchmark.output import machine_text, table_of
from alexnet_mp.performance.benchmark.rounds import SetupTurns
from alexnet_mp.performance.benchmark.settings import BenchmarkSettings, Setup
from alexnet_mp.performance.benchmark.summary import variant_values
from alexnet_mp.performance.benchmark.variants import SPLIT
from alexnet_mp.performance.cost_model.hardware import Hardware
from alexnet_mp.performance.cost_model.prediction import Prediction, predict
from alexnet_mp.performance.cost_model.replicas import Layout


def summarize_processes(
    settings: BenchmarkSettings,
    measured: Sequence[SetupTurns],
    threads: int,
    hardware: Hardware | None,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """`about`, and for each number of processes its values, in order, as `processes`; `threads` are of each.

    Images a second are of all replicas together, medians over the rounds.
    `matrix_bound_images_per_second`: the speed of a step that consists of its matrix products, done by as many
    processes at the same moment; where they are more than the cores, that of the most with a core each, since a product
    that takes less than the kernel's time slice says nothing of sharing. `efficiency` compares, round by round, with
    one process times the cores in use: the number of processes times their threads, or all cores where those are fewer.
    `fractions_of_a_step`: `products`, by the bound; `update`, `crossings` (exposed) and `late_towers` as measured;
    `rest`, what remains: elementwise rows, and, of several replicas, summing gradients and waiting for each other.
    Other values are those of `summary.py`. If hardware is described, the cost model's prediction stands beside, with
    its error.
    """
    cores = usable_cores()
    alone: list[float] = []
    bounds: list[float] = []
    values = []
    for each in measured:
        setup, count = each.setup, each.setup.processes or 1
        bounds = each.bound_speeds() or bounds
        bound = median(bounds) if bounds else None
        found = variant_values(setup.batch_size, each.turns[SPLIT], bound, count // setup.replicas)
        speed = found["images_per_second"]
        alone = alone or found["images_per_second_of_rounds"]
        used = min(count * threads, cores) / min(threads, cores)
        ratios = [several / one for several, one in zip(found["images_per_second_of_rounds"], alone, strict=False)]
        parts = {"products": found["fraction_of_bound"]} if bound else {}
        for name, part in (("update", "optimizer"), ("crossings", "exposed_crossing"), ("late_towers", "skew")):
            parts[name] = found["step_seconds"][part] * speed / setup.batch_size
        found |= {
            "replicas": setup.replicas,
            "batch_size": setup.batch_size,
            "matrix_bound_images_per_second": bound,
            "matrix_bound_of_rounds": bounds,
            "times_one_process": median(ratios),
            "efficiency": median(ratios) / used,
            "efficiency_of_rounds": [ratio / used for ratio in ratios],
            "fractions_of_a_step": {**parts, "rest": 1 - sum(parts.values())},
        }
        if hardware:
            predicted = prediction_of(setup, hardware).images_per_second
            found |= {"predicted_images_per_second": predicted, "prediction_error": predicted / speed - 1}
        values.append(found)
    network = measured[0].setup.network
    return {
        "network": network.name,
        "image": list(network.image),
        "towers": network.towers,
        "batch_scaling": settings.batch_scaling,
        "hardware": settings.hardware,
        **about,
        "processes": values,
    }


def prediction_of(setup: Setup, hardware: Hardware) -> Prediction:
    """Of processes with one thread: one alone has one core, and not all as `launch/plan.py` takes it."""
    network, batch = setup.network, setup.batch_size
    if setup.processes == 1:
        return predict(network, replace(hardware, one_process=None), batch).predictions["single"]
    way: Literal["split", "data_parallel"] = "split" if network.towers > 1 else "data_parallel"
    return predict(network, hardware, batch, layout=Layout(setup.replicas)).predictions[way]


def processes_text(report: Mapping[str, Any]) -> str:
    """`summarize_processes`'s values for a terminal: a line for each number of processes."""
    values = report["processes"]
    lines = [
        machine_text(report["machine"], " of a process"),
        f"{report['network']}, batch_scaling={report['batch_scaling']}; rounds: {report['rounds']}, steps in each: "
        f"{report['steps']}, after {report['warmup_steps']} to warm up; seed {report['seed']}",
        "",
        *table_of([_row(each) for each in values]),
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


def _row(values: Mapping[str, Any]) -> dict[str, str]:
    sent = values["crossing_bytes_per_step"] * (values["processes"] > 1) + values["all_reduce_bytes_sent_in_a_ring"]
    row = {
        "processes x threads": f"{values['processes']} x {values['threads_per_process']}",
        "replicas": str(values["replicas"]),
        "batch": str(values["batch_size"]),
        "images/s": f"{values['images_per_second']:.4g}",
        "spread": f"{values['spread']:.0%}",
        "times one": f"{values['times_one_process']:.2f}",
        "efficiency": f"{values['efficiency']:.0%}",
        "bound": f"{values['matrix_bound_images_per_second'] or math.nan:.4g}",
        "of bound": f"{values['fraction_of_bound'] or math.nan:.0%}",
        "sent MB": f"{sent / 1e6:,.1f}",
    }
    if "predicted_images_per_second" in values:
        row["predicted"] = f"{values['predicted_images_per_second']:.4g}"
        row["error"] = f"{values['prediction_error']:+.0%}"
    return row
