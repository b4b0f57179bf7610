"""What more processes bring: efficiency to one process, the parts of a step, and the cost model's prediction beside.

`docs/scaling.md` has the figures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any, Literal

from alexnet_mp.common.host import usable_cores
from alexnet_mp.common.text import aligned
from alexnet_mp.performance.benchmark.output import machine_text
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
        bound = median(bounds)
        found = variant_values(setup.batch_size, each.turns[SPLIT], bound, count // setup.replicas)
        alone = alone or found["images_per_second_of_rounds"]
        used = min(count * threads, cores) / min(threads, cores)
        ratios = [speed / one for speed, one in zip(found["images_per_second_of_rounds"], alone, strict=True)]
        seconds, step = found["step_seconds"], setup.batch_size / found["images_per_second"]
        measured_parts = {"update": "optimizer", "crossings": "exposed_crossing", "late_towers": "skew"}
        parts = {"products": found["fraction_of_bound"]}
        parts |= {name: seconds[part] / step for name, part in measured_parts.items()}
        values.append(
            {
                **found,
                "replicas": setup.replicas,
                "batch_size": setup.batch_size,
                "matrix_bound_images_per_second": bound,
                "matrix_bound_of_rounds": bounds,
                "times_one_process": median(ratios),
                "efficiency": median(ratios) / used,
                "efficiency_of_rounds": [ratio / used for ratio in ratios],
                "fractions_of_a_step": {**parts, "rest": 1 - sum(parts.values())},
                **(_predicted(setup, hardware, found["images_per_second"]) if hardware else {}),
            }
        )
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


def _predicted(setup: Setup, hardware: Hardware, measured: float) -> dict[str, float]:
    predicted = prediction_of(setup, hardware).images_per_second
    return {"predicted_images_per_second": predicted, "prediction_error": predicted / measured - 1}


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
    predicted = "predicted_images_per_second" in values[0]
    head = ["processes x threads", "replicas", "batch", "images/s", "spread", "times one", "efficiency", "bound"]
    head += ["of bound", "sent MB", *(["predicted", "error"] if predicted else [])]
    lines = [
        machine_text(report["machine"], " of a process"),
        f"{report['network']}, batch_scaling={report['batch_scaling']}; rounds: {report['rounds']}, steps in each: "
        f"{report['steps']}, after {report['warmup_steps']} to warm up; seed {report['seed']}",
        "",
        *aligned([head, *(_row(each, predicted) for each in values)]),
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
