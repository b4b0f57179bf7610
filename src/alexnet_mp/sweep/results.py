"""What the jobs of a sweep found, by variant: numbers for files, and a table for a terminal."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from alexnet_mp.analysis.results.groups import Spread, spread
from alexnet_mp.analysis.results.record import RunRecord
from alexnet_mp.common.text import aligned
from alexnet_mp.sweep.jobs import Job
from alexnet_mp.sweep.settings import PublishedErrors, Variant


@dataclass(frozen=True)
class JobResult:
    """What became of a job: `run` if it is done; `exit_code` and `error` if it failed or was stopped."""

    job: Job
    status: Literal["done", "failed", "stopped", "not started"]
    run: RunRecord | None = None
    exit_code: int | None = None
    error: str = ""


@dataclass(frozen=True)
class Measure:
    """A number of every finished run; `shown` is how a table names it, by which factor and in which form."""

    key: str
    value: Callable[[RunRecord], float]
    shown: str
    factor: float = 1.0
    form: str = ".2f"

    def text(self, value: float) -> str:
        return f"{self.factor * value:{self.form}}"


MEASURES = (
    Measure("top1_error", lambda run: run.summary.top1_error, "top-1 error, %", 100),
    Measure("top5_error", lambda run: run.summary.top5_error, "top-5 error, %", 100),
    Measure("validation_loss", lambda run: run.metrics.validations[-1].loss, "validation loss", form=".4f"),
    Measure("images_per_second", lambda run: run.summary.images_per_second, "images/s", form=".0f"),
    Measure("seconds", lambda run: run.summary.seconds, "seconds", form=".1f"),
)
ERRORS = MEASURES[:2]


@dataclass(frozen=True)
class VariantResult:
    """A variant and what became of its jobs, by seed."""

    name: str
    variant: Variant
    jobs: tuple[JobResult, ...]
    baseline: "VariantResult | None" = None

    @property
    def runs(self) -> list[RunRecord]:
        return [result.run for result in self.jobs if result.run is not None]

    def above_baseline(self, measure: Measure) -> Spread | None:
        """By how much a measure is above the baseline's with the same seed: median and range over common seeds."""
        if self.baseline is None:
            return None
        theirs = {run.summary.seed: measure.value(run) for run in self.baseline.runs}
        pairs = [(run.summary.seed, measure.value(run)) for run in self.runs]
        found = [value - theirs[seed] for seed, value in pairs if seed in theirs]
        return spread(found) if found else None

    def spread(self, measure: Measure) -> Spread | None:
        """Median and range over the finished runs, if there is one."""
        return spread([measure.value(run) for run in self.runs]) if self.runs else None


def sweep_table(results: Sequence[VariantResult]) -> str:
    """One row a variant, medians with the range behind them; published numbers beside ours if a variant has some."""
    published = [result.variant.published for result in results if result.variant.published]
    compared = any(result.baseline for result in results)
    points = any(each.top1_points is not None for each in published)
    rows = [_cells(result, compared, bool(published), points) for result in results]
    return "\n".join(aligned([list(rows[0]), *(list(row.values()) for row in rows)]))


def _cells(result: VariantResult, compared: bool, published: bool, points: bool) -> dict[str, str]:
    """A row, by the names of its columns."""
    done, asked = len(result.runs), len(result.jobs)
    cells = {"variant": result.name, "seeds": str(done) if done == asked else f"{done} of {asked}"}
    for measure in MEASURES:
        cells[measure.shown] = _in_words(result.spread(measure), measure.text)
        if measure is ERRORS[0] and compared:
            above = result.above_baseline(measure)
            cells["points above baseline"] = _in_words(above, lambda x: f"{100 * x:+.2f}") if result.baseline else ""
    if published:
        known = result.variant.published or PublishedErrors(source="")
        errors = {"published top-1, %": known.top1_error, "top-5, %": known.top5_error}
        cells |= {column: "" if error is None else f"{100 * error:.2f}" for column, error in errors.items()}
        if points:
            cells["published points"] = "" if known.top1_points is None else f"{known.top1_points:+.2f}"
        cells["by"] = known.source
    return cells


def _in_words(found: Spread | None, words: Callable[[float], str]) -> str:
    if found is None:
        return "-"
    median = words(found.median)
    return median if found.count == 1 else f"{median} ({words(found.low)} to {words(found.high)})"


def sweep_values(results: Sequence[VariantResult]) -> dict[str, Any]:
    """The same as plain values by variant, and every job; errors are fractions, folders relative to the sweep's."""
    return {
        "variants": {
            result.name: {
                "overrides": list(result.variant.overrides),
                "published": asdict(result.variant.published) if result.variant.published else None,
                "seeds": len(result.runs),
                **{measure.key: _spread_values(result.spread(measure)) for measure in MEASURES},
                "above_baseline": {measure.key: _spread_values(result.above_baseline(measure)) for measure in ERRORS},
            }
            for result in results
        },
        "jobs": [_job_values(job) for result in results for job in result.jobs],
    }


def sweep_rows(results: Sequence[VariantResult]) -> Iterator[dict[str, Any]]:
    """The same as rows of one table: `row` is job, or median, lowest or highest over a variant's finished jobs."""
    for result in results:
        for job in result.jobs:
            yield {"row": "job", **_job_values(job)}
    for result in results:
        found = {measure.key: _spread_values(result.spread(measure)) or {} for measure in MEASURES}
        for row in ("median", "lowest", "highest") if result.runs else ():
            numbers = {key: parts[row] for key, parts in found.items()}
            yield {"row": row, "variant": result.name, "seeds": len(result.runs), **numbers}
        published = result.variant.published
        if published:
            errors = {"top1_error": published.top1_error, "top5_error": published.top5_error}
            yield {"row": "published", "variant": result.name, **errors, "source": published.source}


ROW_KEYS = (
    *("row", "variant", "seed", "seeds", "status", "exit_code"),
    *(measure.key for measure in MEASURES),
    *("processes", "run_dir", "error", "source"),
)


def _job_values(result: JobResult) -> dict[str, Any]:
    job, run = result.job, result.run
    return {
        "variant": job.variant,
        "seed": job.seed,
        "status": result.status,
        "exit_code": result.exit_code,
        "error": result.error or None,
        **{measure.key: measure.value(run) if run else None for measure in MEASURES},
        "processes": run.summary.world_size if run else None,
        "run_dir": job.name,
    }


def _spread_values(found: Spread | None) -> dict[str, float] | None:
    return None if found is None else {"median": found.median, "lowest": found.low, "highest": found.high}
