"""Predictions beside published timings, and the error of each: `python launch/plan.py check=true`."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import yaml

from alexnet_mp.common.presets import preset_path
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.common.text import aligned
from alexnet_mp.network.rows import Dropout
from alexnet_mp.network.table import Network, load_network
from alexnet_mp.performance.cost_model.hardware import load_hardware
from alexnet_mp.performance.cost_model.prediction import Prediction, Strategy, predict
from alexnet_mp.performance.cost_model.settings import IMAGENET_TRAIN


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
        network = _without_dropout(network)
    hardware = replace(load_hardware(timing.hardware), software=timing.software)
    plan = predict(network, hardware, timing.batch, timing.precision)
    predicted = _in_unit(plan.predictions[timing.strategy], timing)
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


def _in_unit(prediction: Prediction, timing: PublishedTiming) -> float:
    if timing.unit == "ms":
        return 1e3 * (prediction.step - prediction.optimizer)
    days = prediction.days(timing.epochs, timing.images)
    return days if timing.unit == "days" else 24 * days


def _without_dropout(network: Network) -> Network:
    return replace(network, rows={name: row for name, row in network.rows.items() if not isinstance(row, Dropout)})


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
