"""Reads a sweep as a study for the page of results: a table and a chart of its variants, beside published numbers."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from alexnet_mp.analysis.results.groups import MINUTES, TOP1_ERROR, Spread
from alexnet_mp.analysis.results.markdown import block, code, text
from alexnet_mp.analysis.results.record import RunRecord, read_run
from alexnet_mp.common.disk import regular
from alexnet_mp.common.presets import preset_names
from alexnet_mp.common.text import count, markdown_table, printable
from alexnet_mp.errors import explained

_MOST_CURVES = 3  # more lie upon each other


@dataclass(frozen=True)
class StudyVariant:
    """A variant of a sweep: errors are fractions, published points are of per cent.

    `above_baseline` is the difference to the baseline's run with the same seed, in top-1 error and in top-5 error.
    """

    name: str
    overrides: tuple[str, ...]
    runs: tuple[RunRecord, ...]
    above_baseline: Spread | None
    above_baseline_top5: Spread | None
    published: Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """A sweep, read from its folder; `command` is the command line that asked for it, if it was noted."""

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
    unreadable = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
    with explained(f"{path} is not what a sweep writes; give a sweep's folder", *unreadable):
        held = json.loads(regular(path).read_text(encoding="utf-8"))
        overrides = tuple(map(str, held["definition"]["overrides"]))
        done = [(job["variant"], f"seed-{job['seed']}") for job in held["jobs"] if job["status"] == "done"]
        variants = [
            _variant(name, values, [folder / name / seed for variant, seed in done if variant == name])
            for name, values in held["variants"].items()
        ]
        command = held.get("command")  # older sweeps did not note it
        return Study(
            folder.name, None if command is None else str(command), overrides, tuple(variants), len(held["jobs"])
        )


def _variant(name: str, values: Mapping[str, Any], runs: Sequence[Path]) -> StudyVariant:
    def spread(found: Mapping[str, float] | None) -> Spread | None:
        return None if found is None else Spread(**{key: float(found[key]) for key in found}, count=len(runs))

    above = values.get("above_baseline", {})
    return StudyVariant(
        name,
        tuple(map(str, values["overrides"])),
        tuple(map(read_run, runs)),
        spread(above.get("top1_error")),
        spread(above.get("top5_error")),
        values["published"] or {},
    )


def study_section(study: Study, note: str, picture: str) -> list[str]:
    """The study's part of the page, in Markdown; `note` is what its reader must know, `picture` its chart's path."""
    parts = [f"## Study {code(study.name)}", *([note.strip()] if note else [])]
    command = study.command
    if command is None and study.name in preset_names("sweep"):  # the folder is called by its preset
        command = f"python launch/sweep.py sweep={study.name} out=sweeps/{study.name}"
    parts += [block([command])] if command else []
    shared = f"Every run: {code(' '.join(study.overrides))}. " if study.overrides else ""
    parts.append(f"{shared}{_in_common(study.runs)}")
    if len(study.runs) < study.asked:
        parts.append(f"Not complete: {len(study.runs)} of {study.asked} runs are finished.")
    columns = _columns(study)
    rows = [[cell(variant) for cell in columns.values()] for variant in study.variants]
    parts.append(markdown_table([list(columns), *rows]))
    parts.append(f"![Top-1 error of every run, by variant]({picture})")
    parts.append("Medians over the seeds, and the range; points are per cent of the images, seed by seed.")
    return parts


def _columns(study: Study) -> dict[str, Callable[[StudyVariant], str]]:
    """The table's columns: a header, and what makes a variant's cell. What is alike for all runs has none."""
    compared = any(variant.above_baseline for variant in study.variants)
    published = any(variant.published for variant in study.variants)
    top5 = any(variant.published.get("top5_points") is not None for variant in study.variants)
    epochs, batches = ({getattr(run.summary, key) for run in study.runs} for key in ("epochs", "batch_size"))
    columns: dict[str, tuple[bool, Callable[[StudyVariant], str]]] = {
        "variant": (True, lambda variant: text(variant.name)),
        "changes": (True, lambda variant: code(" ".join(variant.overrides)) if variant.overrides else ""),
        "seeds": (True, lambda variant: str(len(variant.runs))),
        "parameters": (True, lambda variant: _of_runs(variant, "parameters")),
        "epochs": (len(epochs) > 1, lambda variant: _of_runs(variant, "epochs")),
        "batch": (len(batches) > 1, lambda variant: _of_runs(variant, "batch_size")),
        "minutes a run": (True, lambda variant: MINUTES.median_and_range(variant.runs)[0]),
        TOP1_ERROR.shown: (True, lambda variant: _per_cent(TOP1_ERROR.spread(variant.runs), ".2f") or "-"),
        "points above the baseline": (compared, lambda variant: _per_cent(variant.above_baseline, "+.2f")),
        "the same of top-5": (compared and top5, lambda variant: _per_cent(variant.above_baseline_top5, "+.2f")),
        f"published points{', top-1 / top-5' * top5}": (published, lambda variant: _published_points(variant, top5)),
        "published top-1 error, %": (published, _published_error),
        "by": (published, lambda variant: text(str(variant.published.get("source", "")))),
    }
    return {name: cell for name, (is_shown, cell) in columns.items() if is_shown}


def _of_runs(variant: StudyVariant, key: str) -> str:
    """A number of the summary that is the same for every seed."""
    return f"{getattr(variant.runs[0].summary, key):,}" if variant.runs else "-"


def _per_cent(found: Spread | None, form: str) -> str:
    return "" if found is None else found.in_words(lambda value: f"{100 * value:{form}}")


def _published_points(variant: StudyVariant, with_top5: bool) -> str:
    points = [variant.published.get(key) for key in ("top1_points", "top5_points")[: 1 + with_top5]]
    return "" if points == [None] * len(points) else " / ".join("-" if p is None else f"{p:+g}" for p in points)


def _published_error(variant: StudyVariant) -> str:
    error = variant.published.get("top1_error")
    return "" if error is None else f"{100 * error:.2f}"


def _in_common(runs: Sequence[RunRecord]) -> str:
    """Length and batch if they are the same for all runs, and every machine that one of them ran on."""
    if not runs:
        return ""
    summaries = [run.summary for run in runs]
    epochs, batches = {ran.epochs for ran in summaries}, {ran.batch_size for ran in summaries}
    trained = [count(max(epochs), "epoch")] * (len(epochs) == 1) + [f"batch {max(batches)}"] * (len(batches) == 1)
    machines = dict.fromkeys(f"{ran.device}, {ran.processes_in_words}; {ran.versions_in_words}" for ran in summaries)
    commits = ", ".join(sorted({(ran.commit or "unknown")[:10] for ran in summaries}))
    said = [", ".join(trained), *machines, f"commit{'s' * (',' in commits)} {commits}"]
    return text(f"{'; '.join(filter(None, said))}.")


def draw_study_chart(study: Study, picture: Path) -> None:
    """Draw the finished runs as a PNG. Dots are runs, a bar their median; shades are the range over the seeds."""
    from matplotlib.ticker import MaxNLocator  # slow to import

    from alexnet_mp.common.drawing import BLUE, GREEN, INK, RUST, WIDTH, drawing, name_bars

    variants = [variant for variant in study.variants if variant.runs]
    names = [printable(variant.name).replace("_", " ") for variant in variants]
    with_curves = len(variants) <= _MOST_CURVES
    height = max(1.2 + 0.32 * len(variants), 3.4 if with_curves else 0)
    title = f"{printable(study.name).replace('_', ' ')}: top-1 error by variant and seed"
    with drawing(picture, WIDTH if with_curves else 7, height, title) as figure:
        *of_curves, last = figure.subplots(1, 1 + with_curves, squeeze=False)[0]
        for curves in of_curves:
            for variant, name, color in zip(variants, names, (BLUE, RUST, GREEN), strict=False):
                runs = [{found.epoch: found.top1_error for found in run.metrics.validations} for run in variant.runs]
                epochs = sorted(set.intersection(*map(set, runs)))
                errors = [[100 * run[epoch] for run in runs] for epoch in epochs]
                curves.plot(epochs, list(map(median, errors)), "o-", color=color, label=name)
                lowest, highest = list(map(min, errors)), list(map(max, errors))
                curves.fill_between(epochs, lowest, highest, color=color, alpha=0.2, lw=0)
            longest = max(run.summary.epochs for run in study.runs)
            curves.set(xlabel="epoch", ylabel="top-1 error, %", xlim=(0, longest))
            curves.grid()
            curves.xaxis.set_major_locator(MaxNLocator(integer=True))
            curves.legend()
        of_runs = [[100 * run.summary.top1_error for run in variant.runs] for variant in variants]
        for place, found in enumerate(of_runs):
            last.plot(found, [place] * len(found), "o", ms=5, color=BLUE, alpha=0.8)
            last.plot([median(found)] * 2, [place - 0.28, place + 0.28], color=INK, lw=1.5)
        baseline = [found for found, variant in zip(of_runs, variants, strict=True) if not variant.above_baseline]
        if baseline and len(baseline) < len(variants):
            last.axvline(median(baseline[0]), color=INK, lw=0.8, ls="--")
        name_bars(last, names)
        last.set(xlabel="top-1 error after the last epoch, %")
