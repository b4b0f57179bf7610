"""Predict a training step, its memory and 90 epochs: python launch/plan.py network=paper hardware=two_gtx_580."""

from functools import partial

from alexnet_mp.common.cli import Configuration, run_command, show
from alexnet_mp.common.disk import write_json
from alexnet_mp.performance.cost_model.comparisons import (
    benchmark_table,
    compare_with_benchmark,
    compare_with_published,
    published_table,
    published_timings,
)
from alexnet_mp.performance.cost_model.hardware import load_hardware
from alexnet_mp.performance.cost_model.prediction import predict
from alexnet_mp.performance.cost_model.replicas import Layout, linked
from alexnet_mp.performance.cost_model.report import plan_text, plan_values
from alexnet_mp.performance.cost_model.settings import PlanSettings, parse_plan_settings


def run(configuration: Configuration) -> None:
    """Print the plan, or a comparison; write the same numbers as JSON to the file that `json` names."""
    # An ablation may change the recipe too, which costs the same.
    settings = parse_plan_settings({key: value for key, value in configuration.items() if key != "recipe"})
    values, text = _values_and_text(settings)
    show(text)
    if settings.json:
        write_json(settings.json, values)


def _values_and_text(settings: PlanSettings) -> tuple[object, str]:
    if settings.check:
        comparisons = [compare_with_published(timing) for timing in published_timings()]
        return comparisons, published_table(comparisons)
    hardware = load_hardware(settings.hardware)
    if settings.against:
        comparison = compare_with_benchmark(settings, hardware)
        return comparison, benchmark_table(comparison)
    predicted = partial(predict, settings.network, precision=settings.precision, crossing_dtype=settings.crossing_dtype)
    layout = Layout(settings.replicas, settings.nodes)
    plan = predicted(linked(hardware, settings.node_bandwidth), settings.batch_size, layout=layout)
    alone = predicted(hardware, max(1, settings.batch_size // settings.replicas))
    values = plan_values(plan, settings, hardware, alone)
    return values, plan_text(values)


main = partial(run_command, "plan", run)  # what launch/plan.py calls

if __name__ == "__main__":
    main()
