"""Studies for the page of results: what the variants of a sweep found, over seeds, beside what others found."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_mp.errors import ConfigurationError
from alexnet_mp.results.markdown import block, code, table, text
from alexnet_mp.results.record import RunRecord, read_run
from alexnet_mp.strict import from_mapping

POINTS = "points above the baseline"


@dataclass(frozen=True)
class Range:
    """Median and range of a number over seeds, as `sweep.json` has them."""

    median: float
    lowest: float
    highest: float

    def in_per_cent(self, form: str) -> str:
        """`12.34 (12.00 to 13.00)`; a sign where the form asks for one."""
        median, low, high = (f"{100 * value:{form}}" for value in (self.median, self.lowest, self.highest))
        return median if low == high else f"{median} ({low} to {high})"


@dataclass(frozen=True)
class StudyVariant:
    """A variant of a sweep: errors are fractions, published points are of per cent.

    `above_baseline` is the difference to the baseline's run with the same seed.
    """

    name: str
    overrides: tuple[str, ...]
    runs: tuple[RunRecord, ...]
    top1_error: Range | None
    above_baseline: Range | None
    published: Mapping[str, Any] | None


@dataclass(frozen=True)
class Study:
    """A sweep, read from its folder."""

    name: str
    overrides: tuple[str, ...]
    variants: tuple[StudyVariant, ...]
    asked: int

    @property
    def picture(self) -> str:
        """Its chart's path, from the page on."""
        name = re.sub(r"[^\w.-]", "_", self.name)
        return f"curves/study-{name}.png"

    @property
    def runs(self) -> list[RunRecord]:
        """The finished runs of all variants."""
        return [run for variant in self.variants for run in variant.runs]


def read_study(folder: Path) -> Study:
    """Read `sweep.json` and the finished runs; raises ConfigurationError where it cannot."""
    path = folder / "sweep.json"
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        overrides = tuple(map(str, held["definition"]["overrides"]))
        finished: dict[str, list[RunRecord]] = {name: [] for name in held["variants"]}
        for job in held["jobs"]:
            if job["status"] == "done":
                finished[job["variant"]].append(read_run(folder / job["variant"] / f"seed-{job['seed']}"))
        variants = tuple(
            StudyVariant(
                name,
                tuple(map(str, values["overrides"])),
                tuple(finished[name]),
                _range(values["top1_error"]),
                _range(values.get("above_baseline", {}).get("top1_error")),
                values["published"],
            )
            for name, values in held["variants"].items()
        )
        return Study(folder.name, overrides, variants, len(held["jobs"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not what a sweep writes ({error!r}); give a sweep's folder") from error


def as_section(study: Study, note: str) -> list[str]:
    """The study's part of the page, in Markdown; `note` is what its reader must know."""
    parts = [f"## Study {code(study.name)}", *([note.strip()] if note else [])]
    parts.append(block([f"python launch/sweep.py sweep={study.name} out=sweeps/{study.name}"]))
    parts.append(f"Every run: {code(' '.join(study.overrides))}. {_machine(study.runs)}")
    if len(study.runs) < study.asked:
        parts.append(f"Not complete: {len(study.runs)} of {study.asked} runs are finished.")
    compared = any(variant.above_baseline for variant in study.variants)
    published = any(variant.published for variant in study.variants)
    header = ["variant", "changes", "seeds", "parameters", "minutes a run", "top-1 error, %"]
    header += [POINTS] * compared + ["published points", "published top-1 error, %", "by"] * published
    rows = [
        [*_measured(variant), *([_points(variant)] * compared), *(_published(variant) if published else [])]
        for variant in study.variants
    ]
    parts.append(table(header, rows))
    parts.append(f"![Top-1 error of every run, by variant]({study.picture})")
    parts.append("Medians over the seeds, and the range; points are per cent of the images, seed by seed.")
    return parts


def _measured(variant: StudyVariant) -> list[str]:
    error = variant.top1_error.in_per_cent(".2f") if variant.top1_error else "-"
    parameters = f"{variant.runs[0].summary.parameters:,}" if variant.runs else "-"
    changes = code(" ".join(variant.overrides)) if variant.overrides else ""
    return [text(variant.name), changes, str(len(variant.runs)), parameters, _minutes(variant), error]


def _points(variant: StudyVariant) -> str:
    return variant.above_baseline.in_per_cent("+.2f") if variant.above_baseline else ""


def _published(variant: StudyVariant) -> list[str]:
    known = variant.published or {}
    points, error = known.get("top1_points"), known.get("top1_error")
    return [
        "" if points is None else f"{points:+g}",
        "" if error is None else f"{100 * error:.2f}",
        text(str(known.get("source", ""))),
    ]


def _minutes(variant: StudyVariant) -> str:
    seconds = sorted(run.summary.seconds for run in variant.runs)
    return f"{seconds[len(seconds) // 2] / 60:.1f}" if seconds else "-"


def _machine(runs: Sequence[RunRecord]) -> str:
    if not runs:
        return ""
    ran = runs[0].summary
    versions = ", ".join(f"{program} {version}" for program, version in ran.versions.items())
    commits = ", ".join(sorted({(run.summary.commit or "unknown")[:10] for run in runs}))
    threads = f"{ran.world_size} process{'es' * (ran.world_size > 1)} of {ran.threads} CPU thread"
    return text(f"{ran.epochs} epochs, batch {ran.batch_size}; {ran.device}, {threads}; {versions}; commit {commits}.")


def _range(values: object) -> Range | None:
    return None if values is None else from_mapping(Range, values, "a range of sweep.json")
