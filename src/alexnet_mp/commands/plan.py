"""Predict a training step, its memory and 90 epochs: python launch/plan.py network=paper device=two_gtx_580."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from alexnet_mp.common.cli import run_command, show
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.performance.cost_model import against, published, report
from alexnet_mp.performance.cost_model.device import load_device
from alexnet_mp.performance.cost_model.prediction import predict
from alexnet_mp.performance.cost_model.replicas import Layout, linked
from alexnet_mp.performance.cost_model.settings import PlanSettings, parse_plan_settings


def run(configuration: Mapping[str, Any]) -> None:
    """Print the plan, or a comparison; write the same numbers as JSON where `json` says."""
    # An ablation may change the recipe too, which costs the same.
    settings = parse_plan_settings({key: value for key, value in configuration.items() if key != "recipe"})
    values, text = _values_and_text(settings)
    show(text)
    if settings.json:
        try:
            Path(settings.json).write_text(json.dumps(values, indent=2) + "\n")
        except OSError as error:
            raise ConfigurationError(f"cannot write json={settings.json}: {error}") from error


def _values_and_text(settings: PlanSettings) -> tuple[object, str]:
    if settings.check:
        comparisons = [published.compare(number) for number in published.PUBLISHED]
        return comparisons, published.as_text(comparisons)
    device = load_device(settings.device)
    if settings.against:
        comparison = against.compare_with_benchmark(settings, device)
        return comparison, against.as_text(comparison)
    predicted = partial(predict, settings.network, precision=settings.precision, crossing_dtype=settings.crossing_dtype)
    layout = Layout(settings.replicas, settings.nodes)
    plan = predicted(linked(device, settings.node_bandwidth), settings.batch_size, layout=layout)
    alone = predicted(device, max(1, settings.batch_size // settings.replicas))
    values = report.as_values(plan, settings, device, alone)
    return values, report.as_text(values)


def main() -> None:
    """Entry point of `launch/plan.py`."""
    run_command("plan", run)


if __name__ == "__main__":
    main()
