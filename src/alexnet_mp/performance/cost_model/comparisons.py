"""Predictions beside measurements, and the error of each: published ones, and those of `split_vs_single.py`."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from alexnet_mp.common.disk import regular
from alexnet_mp.common.presets import preset_path
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.common.text import aligned
from alexnet_mp.errors import ConfigurationError, explained
from alexnet_mp.network.rows import Dropout
from alexnet_mp.network.table import load_network
from alexnet_mp.performance.cost_model.hardware import Hardware, load_hardware
from alexnet_mp.performance.cost_model.prediction import Strategy, predict
from alexnet_mp.performance.cost_model.settings import IMAGENET_TRAIN, PlanSettings

# The variants that are this library's network, trained by a strategy that the model knows. Stock layers, other networks
# and pipelines have other kernels and other schedules, of which the description says nothing.
MODELED: dict[str, Strategy] = {
    "split_two_processes": "split",
    "split_one_process": "single",
    "single_ours": "single",
    "ddp_ours": "data_parallel",
}


@dataclass(frozen=True)
class PublishedTiming:
    """An entry of `conf/published_timings.yaml`, which says what each key means, and what to predict for it."""

    published: tuple[float, ...]
    unit: Literal["ms", "hours", "days"]
    network: str
    hardware: str
    software: str
    strategy: Strategy
    batch: int
    source: str
    note: str = ""
    precision: str = "float32"
    epochs: float = 90
    images: int = IMAGENET_TRAIN
    calibrates: bool = False
    what: str = ""

    @property
    def name(self) -> str:
        """How the table calls it."""
        return self.what or f"{self.network}, {self.software}, {self.precision}"


def published_timings() -> list[PublishedTiming]:
    """All of `conf/published_timings.yaml`, in its order."""
    entries = yaml.safe_load(preset_path("", "published_timings").read_text(encoding="utf-8"))["timings"]
    return [from_mapping(PublishedTiming, entry, f"timings[{index}]") for index, entry in enumerate(entries)]


def compare_with_published(timing: PublishedTiming) -> dict[str, Any]:
    """What was published, what the model says, and the error: relative to the nearer end of a range, 0 inside it."""
    network = load_network(timing.network)
    if timing.unit == "ms":
        rows = {name: row for name, row in network.rows.items() if not isinstance(row, Dropout)}
        network = replace(network, rows=rows)
    hardware = replace(load_hardware(timing.hardware), software=timing.software)
    prediction = predict(network, hardware, timing.batch, timing.precision).predictions[timing.strategy]
    days = prediction.days(timing.epochs, timing.images)
    predicted = {"ms": 1e3 * (prediction.step - prediction.optimizer), "hours": 24 * days, "days": days}[timing.unit]
    low, high = min(timing.published), max(timing.published)
    return {
        "what": timing.name,
        "way": timing.strategy,
        "batch_size": timing.batch,
        "software": timing.software,
        "published": [low, high],
        "unit": timing.unit,
        "predicted": predicted,
        "error": predicted / min(max(predicted, low), high) - 1,
        "calibrates": timing.calibrates,
        "source": timing.source,
        "note": timing.note,
    }


def published_table(comparisons: list[dict[str, Any]]) -> str:
    """The comparisons as a table, and what is not the same in each."""
    rows = [["", "way", "batch", "published", "predicted", "error"]]
    rows += [
        [
            comparison["what"],
            comparison["way"],
            str(comparison["batch_size"]),
            f"{' to '.join(f'{end:g}' for end in dict.fromkeys(comparison['published']))} {comparison['unit']}",
            f"{comparison['predicted']:.4g} {comparison['unit']}",
            "by construction" if comparison["calibrates"] else f"{comparison['error']:+z.0%}",
        ]
        for comparison in comparisons
    ]
    notes = [f"{c['what']} ({c['source']}): {c['note']}." for c in comparisons if c["note"]]
    return "\n".join([*aligned(rows, text_columns=2), "", *notes])


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
            prediction, speed = plan.predictions[strategy], measured[name]["images_per_second"]
            ours, held = prediction.memory.total - prediction.memory.reserved, measured[name].get("peak_memory_bytes")
            compared[name] = {
                "measured_images_per_second": speed,
                "predicted_images_per_second": prediction.images_per_second,
                "error": prediction.images_per_second / speed - 1,
                "predicted_memory_bytes": ours,
                **({"measured_memory_bytes": held, "memory_error": ours / held - 1} if held else {}),
            }
    if not compared:
        raise ConfigurationError(f"against={path} has none of the variants that the model covers: {', '.join(MODELED)}")
    left_out = [name for name in measured if name not in compared]
    return {"batch_size": batch, "hardware": hardware.name, "variants": compared, "not_modeled": left_out}


def _read(path: Path) -> dict[str, Any]:
    with explained(f"cannot read against={path}", OSError, ValueError, RecursionError):
        report = json.loads(regular(path).read_text("utf-8"))
    known = isinstance(report, dict) and isinstance(report.get("batch_size"), int)
    if not known or not isinstance(report.get("variants"), dict):
        raise ConfigurationError(
            f"against={path} is not a report of benchmarks/split_vs_single.py: it needs batch_size and variants"
        )
    return dict(report)


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
