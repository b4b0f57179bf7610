"""Predictions beside what `benchmarks/split_vs_single.py` measured on the same devices, and the error of each."""

import json
from pathlib import Path
from typing import Any

from alexnet_mp.common.text import aligned
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.performance.cost_model.hardware import Hardware
from alexnet_mp.performance.cost_model.prediction import Prediction, Strategy, predict
from alexnet_mp.performance.cost_model.settings import PlanSettings

# The variants that are this library's network, trained by a strategy that the model knows. Stock layers, other networks
# and pipelines have other kernels and other schedules, of which the description says nothing.
MODELED: dict[str, Strategy] = {
    "split_two_processes": "split",
    "split_one_process": "single",
    "single_ours": "single",
    "ddp_ours": "data_parallel",
}


def compare_with_benchmark(settings: PlanSettings, hardware: Hardware) -> dict[str, Any]:
    """For each variant that the model covers: measured, predicted and error, of images a second and of memory.

    The batch is the benchmark's. Raises ConfigurationError for a file that is no report, and one of another network.
    """
    path = settings.against
    report = _read(Path(str(path)))
    batch, measured = report["batch_size"], report["variants"]
    plan = predict(settings.network, hardware, batch, settings.precision, settings.crossing_dtype)
    if report.get("network", settings.network.name) != settings.network.name:
        raise ConfigurationError(
            f"against={path} measured network {report['network']}; add network={report['network']}"
        )
    compared = {}
    for name, strategy in MODELED.items():
        # Only if a process has all devices is a split in one process the same as one device.
        alike = name != "split_one_process" or hardware.one_process is not None
        if name in measured and strategy in plan.predictions and alike:
            compared[name] = _compared(measured[name], plan.predictions[strategy])
    if not compared:
        raise ConfigurationError(f"against={path} has none of the variants that the model covers: {', '.join(MODELED)}")
    left_out = [name for name in measured if name not in compared]
    return {"batch_size": batch, "hardware": hardware.name, "variants": compared, "not_modeled": left_out}


def _read(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"cannot read against={path}: {error}") from error
    known = isinstance(report, dict) and isinstance(report.get("batch_size"), int)
    if not known or not isinstance(report.get("variants"), dict):
        raise ConfigurationError(
            f"against={path} is not a report of benchmarks/split_vs_single.py: it needs batch_size and variants"
        )
    return dict(report)


def _compared(measured: dict[str, Any], prediction: Prediction) -> dict[str, Any]:
    ours = prediction.memory.total - prediction.memory.reserved
    found: dict[str, Any] = {
        "measured_images_per_second": measured["images_per_second"],
        "predicted_images_per_second": prediction.images_per_second,
        "error": prediction.images_per_second / measured["images_per_second"] - 1,
        "predicted_memory_bytes": ours,
    }
    if measured.get("peak_memory_bytes"):
        found["measured_memory_bytes"] = measured["peak_memory_bytes"]
        found["memory_error"] = ours / measured["peak_memory_bytes"] - 1
    return found


def benchmark_table(comparison: dict[str, Any]) -> str:
    """The comparison as a table."""
    rows = [["variant", "measured, images/s", "predicted", "error", "measured, MB", "predicted", "error"]]
    for name, values in comparison["variants"].items():
        measured = values.get("measured_memory_bytes")
        rows.append(
            [
                name,
                f"{values['measured_images_per_second']:.4g}",
                f"{values['predicted_images_per_second']:.4g}",
                f"{values['error']:+.0%}",
                f"{measured / 1e6:,.0f}" if measured else "",
                f"{values['predicted_memory_bytes'] / 1e6:,.0f}",
                f"{values['memory_error']:+.0%}" if measured else "",
            ]
        )
    lines = [f"batch {comparison['batch_size']}, on {comparison['hardware']}", "", *aligned(rows)]
    if comparison["not_modeled"]:
        lines += ["", f"not modeled: {', '.join(comparison['not_modeled'])}"]
    return "\n".join(lines)
