"""Draws one step of a traced run: what crosses between the towers, and what each tower computes meanwhile.

torchrun --nproc-per-node=2 launch/train.py recipe.epochs=1 profile.steps=3 run_dir=runs/traced
python benchmarks/trace_picture.py run_dir=runs/traced out=trace.png
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from alexnet_mp.common.cli import run_command
from alexnet_mp.common.drawing import BLUE, RUST, SAND, WIDTH, drawing, name_bars
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.errors import ConfigurationError, explained

LANES = {"crossing": SAND, "own half": BLUE, "wait": RUST}


@dataclass(frozen=True)
class TracePictureSettings:
    """The keys of `conf/benchmark/trace_picture.yaml`, which says what they mean."""

    run_dir: str
    step: int
    out: str


class Span(NamedTuple):
    """A stretch of time of a lane, in milliseconds of the tracing process's clock."""

    lane: str
    crossing: str
    begin: float
    end: float


def run(configuration: Mapping[str, Any]) -> None:
    """Draw the step of every process, one above the other, as a PNG."""
    settings = from_mapping(TracePictureSettings, configuration, "")
    traces = sorted(Path(settings.run_dir).glob("trace*.json"), key=lambda path: (len(path.name), path.name))
    steps = [steps_of(path) for path in traces]
    if not steps or not all(-len(each) <= settings.step < len(each) for each in steps):
        held = f"{len(steps[0])} traced steps" if steps else "no trace.json; train it with profile.steps=3"
        raise ConfigurationError(f"run_dir={settings.run_dir} has {held}, and step is {settings.step}")
    with explained(f"cannot write out={settings.out}"):
        draw([each[settings.step] for each in steps], Path(settings.out))
    print(f"written to {settings.out}")


def steps_of(path: Path) -> list[list[Span]]:
    """The spans of each traced step of a process; a step begins with the first crossing of its forward pass."""
    with explained(f"cannot read {path}", OSError, ValueError, KeyError):
        events = json.loads(path.read_text("utf-8"))["traceEvents"]
    spans = [
        Span("wait", each["name"].removeprefix("wait "), each["ts"] / 1e3, (each["ts"] + each["dur"]) / 1e3)
        for each in events
        if each.get("ph") == "X" and each["name"].startswith("wait ")
    ]
    begun: dict[tuple[str, int], float] = {}
    for each in events:
        if each.get("ph") == "b":
            begun[each["name"], each["id"]] = each["ts"]
        elif each.get("ph") == "e" and (start := begun.pop((each["name"], each["id"]), None)) is not None:
            lane = next(lane for lane in LANES if each["name"].startswith(f"{lane} "))
            spans.append(Span(lane, each["name"].removeprefix(f"{lane} "), start / 1e3, each["ts"] / 1e3))
    spans.sort(key=lambda span: span.begin)
    first = next(span.crossing for span in spans if span.lane == "crossing")
    starts = [span.begin for span in spans if (span.lane, span.crossing) == ("crossing", first)]
    return [
        [span for span in spans if start <= span.begin < end]
        for start, end in zip(starts, [*starts[1:], float("inf")], strict=True)
    ]


def draw(processes: list[list[Span]], picture: Path) -> None:
    """Three lanes a process, its clock beginning with the step's first crossing."""
    names = [f"tower {tower}: {lane}" for tower in range(len(processes)) for lane in LANES]
    with drawing(
        picture, WIDTH, 0.9 + 0.34 * len(names), "One step: what crosses, and what is computed meanwhile"
    ) as f:
        axes = f.subplots()
        for tower, spans in enumerate(processes):
            origin = min(span.begin for span in spans)
            for span in spans:
                place = len(LANES) * tower + list(LANES).index(span.lane)
                width = span.end - span.begin
                axes.barh(place, width, 0.7, span.begin - origin, color=LANES[span.lane], edgecolor="white", lw=0.3)
                if span.lane == "crossing":
                    axes.text(span.begin - origin, place - 0.37, short(span.crossing), va="bottom", fontsize=7)
        name_bars(axes, names, above=0.9)
        axes.set(xlabel="milliseconds since the first crossing of the step", xlim=(0, None))


def short(crossing: str) -> str:
    """`conv3 forward` as `conv3 →`, `conv3 backward` as `conv3 ←`."""
    return crossing.replace(" forward", " →").replace(" backward", " ←")


if __name__ == "__main__":
    run_command("benchmark/trace_picture", run)
