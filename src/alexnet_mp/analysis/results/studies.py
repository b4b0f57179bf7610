"""Studies for the page of results: what the variants of a sweep found, over seeds, beside what others found."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alexnet_mp.analysis.results.markdown import block, code, text
from alexnet_mp.analysis.results.record import RunRecord, read_run
from alexnet_mp.common.presets import preset_names
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.common.text import count, markdown_table
from alexnet_mp.errors import ConfigurationError

POINTS, POINTS_TOP5 = "points above the baseline", "the same of top-5"


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

    `above_baseline` is the difference to the baseline's run with the same seed, in top-1 error and in top-5 error.
    """

    name: str
    overrides: tuple[str, ...]
    runs: tuple[RunRecord, ...]
    top1_error: Range | None
    above_baseline: Range | None
    above_baseline_top5: Range | None
    published: Mapping[str, Any] | None


@dataclass(frozen=True)
class Study:
    """A sweep, read from its folder; `command` is the command line that asked for it, where it was noted."""

    name: str
    command: str | None
    overrides: tuple[str, ...]
    variants: tuple[StudyVariant, ...]
    asked: int

    @property
    def runs(self) -> list[RunRecord]:
        """The finished runs of all variants."""
        return [run for variant in self.variants for run in variant.runs]


def read_study(folder: Path) -> Study:
    """Read `sweep.json` and the finished runs; raises ConfigurationError that names which of them cannot be read."""
    path = folder / "sweep.json"
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        overrides = tuple(map(str, held["definition"]["overrides"]))
        finished: dict[str, list[Path]] = {name: [] for name in held["variants"]}
        for job in held["jobs"]:
            if job["status"] == "done":
                finished[job["variant"]].append(folder / job["variant"] / f"seed-{job['seed']}")
        variants = {name: _variant(name, values) for name, values in held["variants"].items()}
        command = held.get("command")  # older sweeps did not note it
        study = Study(folder.name, None if command is None else str(command), overrides, (), len(held["jobs"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not what a sweep writes ({error!r}); give a sweep's folder") from error
    runs = {name: tuple(read_run(run) for run in folders) for name, folders in finished.items()}
    return replace(study, variants=tuple(replace(variant, runs=runs[name]) for name, variant in variants.items()))


def _variant(name: str, values: Mapping[str, Any]) -> StudyVariant:
    """A variant without its runs."""
    above = values.get("above_baseline", {})
    return StudyVariant(
        name,
        tuple(map(str, values["overrides"])),
        (),
        _range(values["top1_error"]),
        _range(above.get("top1_error")),
        _range(above.get("top5_error")),
        values["published"],
    )


def study_section(study: Study, note: str, picture: str) -> list[str]:
    """The study's part of the page, in Markdown; `note` is what its reader must know, `picture` its chart's path."""
    parts = [f"## Study {code(study.name)}", *([note.strip()] if note else [])]
    command = _command(study)
    parts += [block([command])] if command else []
    shared = f"Every run: {code(' '.join(study.overrides))}. " if study.overrides else ""
    parts.append(f"{shared}{_in_common(study.runs)}")
    if len(study.runs) < study.asked:
        parts.append(f"Not complete: {len(study.runs)} of {study.asked} runs are finished.")
    columns = _columns(study)
    parts.append(
        markdown_table([list(columns), *([cell(variant) for cell in columns.values()] for variant in study.variants)])
    )
    parts.append(f"![Top-1 error of every run, by variant]({picture})")
    parts.append("Medians over the seeds, and the range; points are per cent of the images, seed by seed.")
    return parts


def _command(study: Study) -> str | None:
    """The command line that asked for the sweep: as noted, or that of the preset which the folder is called by."""
    if study.command is None and study.name in preset_names("sweep"):
        return f"python launch/sweep.py sweep={study.name} out=sweeps/{study.name}"
    return study.command


def _columns(study: Study) -> dict[str, Callable[[StudyVariant], str]]:
    """The table's columns: a header, and what makes a variant's cell. What is alike for all runs has none."""
    compared = any(variant.above_baseline for variant in study.variants)
    published = [variant.published for variant in study.variants if variant.published]
    top5 = any(known.get("top5_points") is not None for known in published)
    epochs, batches = ({getattr(run.summary, key) for run in study.runs} for key in ("epochs", "batch_size"))
    columns: dict[str, Callable[[StudyVariant], str]] = {
        "variant": lambda variant: text(variant.name),
        "changes": lambda variant: code(" ".join(variant.overrides)) if variant.overrides else "",
        "seeds": lambda variant: str(len(variant.runs)),
        "parameters": lambda variant: _of_runs(variant, "parameters"),
    }
    if len(epochs) > 1:
        columns["epochs"] = lambda variant: _of_runs(variant, "epochs")
    if len(batches) > 1:
        columns["batch"] = lambda variant: _of_runs(variant, "batch_size")
    columns["minutes a run"] = _minutes
    columns["top-1 error, %"] = lambda variant: variant.top1_error.in_per_cent(".2f") if variant.top1_error else "-"
    if compared:
        columns[POINTS] = lambda variant: _points(variant.above_baseline)
    if compared and top5:
        columns[POINTS_TOP5] = lambda variant: _points(variant.above_baseline_top5)
    if published:
        name = "published points, top-1 / top-5" if top5 else "published points"
        columns[name] = lambda variant: _published_points(variant, top5)
        columns["published top-1 error, %"] = _published_error
        columns["by"] = lambda variant: text(str((variant.published or {}).get("source", "")))
    return columns


def _of_runs(variant: StudyVariant, key: str) -> str:
    """A number of the summary that is the same for every seed."""
    return f"{getattr(variant.runs[0].summary, key):,}" if variant.runs else "-"


def _points(above: Range | None) -> str:
    return above.in_per_cent("+.2f") if above else ""


def _published_points(variant: StudyVariant, with_top5: bool) -> str:
    known = variant.published or {}
    points = [known.get("top1_points"), *([known.get("top5_points")] if with_top5 else [])]
    return "" if points == [None] * len(points) else " / ".join("-" if p is None else f"{p:+g}" for p in points)


def _published_error(variant: StudyVariant) -> str:
    error = (variant.published or {}).get("top1_error")
    return "" if error is None else f"{100 * error:.2f}"


def _minutes(variant: StudyVariant) -> str:
    seconds = sorted(run.summary.seconds for run in variant.runs)
    return f"{seconds[len(seconds) // 2] / 60:.1f}" if seconds else "-"


def _in_common(runs: Sequence[RunRecord]) -> str:
    """Length and batch where all runs have the same, and every machine that one of them ran on."""
    if not runs:
        return ""
    epochs, batches = {run.summary.epochs for run in runs}, {run.summary.batch_size for run in runs}
    trained = [count(max(epochs), "epoch")] * (len(epochs) == 1) + [f"batch {max(batches)}"] * (len(batches) == 1)
    machines = dict.fromkeys(map(_machine, runs))
    commits = ", ".join(sorted({(run.summary.commit or "unknown")[:10] for run in runs}))
    said = [", ".join(trained), *machines, f"commit{'s' * (',' in commits)} {commits}"]
    return text(f"{'; '.join(filter(None, said))}.")


def _machine(run: RunRecord) -> str:
    ran = run.summary
    versions = ", ".join(f"{program} {version}" for program, version in ran.versions.items())
    return f"{ran.device}, {count(ran.world_size, 'process', 'es')} of {count(ran.threads, 'CPU thread')}; {versions}"


def _range(values: object) -> Range | None:
    return None if values is None else from_mapping(Range, values, "a range of sweep.json")
