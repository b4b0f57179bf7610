"""Sums up what the jobs of a sweep found, by variant: numbers for files, and a table for a terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from alexnet_mp.analysis.results.groups import IMAGES_PER_SECOND, TOP1_ERROR, TOP5_ERROR, Measure, Spread, spread
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


ERRORS = {"top1_error": TOP1_ERROR, "top5_error": TOP5_ERROR}
MEASURES = {  # by their names in the files
    **ERRORS,
    "validation_loss": Measure("validation loss", lambda run: run.metrics.validations[-1].loss, ".4f"),
    "images_per_second": IMAGES_PER_SECOND,
    "seconds": Measure("seconds", lambda run: run.summary.seconds, ".1f"),
}


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
        pairs = [(measure.value(run), theirs.get(run.summary.seed)) for run in self.runs]
        found = [value - other for value, other in pairs if value is not None and other is not None]
        return spread(found) if found else None


def sweep_table(results: Sequence[VariantResult]) -> str:
    """One row a variant, medians with the range behind them; published numbers beside ours if a variant has some."""
    published = [result.variant.published for result in results if result.variant.published]
    compared = any(result.baseline for result in results)
    points = any(each.top1_points is not None for each in published)
    rows = [_cells(result, compared, bool(published), points) for result in results]
    return "\n".join(aligned([list(rows[0]), *(list(row.values()) for row in rows)]))


def _cells(result: VariantResult, compared: bool, published: bool, with_points: bool) -> dict[str, str]:
    """A row, by the names of its columns."""
    done, asked = len(result.runs), len(result.jobs)
    cells = {"variant": result.name, "seeds": str(done) if done == asked else f"{done} of {asked}"}
    for measure in MEASURES.values():
        found = measure.spread(result.runs)
        cells[measure.shown] = found.in_words(measure.text) if found else "-"
        if measure is TOP1_ERROR and compared:
            above = result.above_baseline(measure)
            points = above.in_words(lambda x: f"{100 * x:+.2f}") if above else "-"
            cells["points above baseline"] = points if result.baseline else ""
    if published:
        known = result.variant.published or PublishedErrors(source="")
        errors = {"published top-1, %": known.top1_error, "top-5, %": known.top5_error}
        cells |= {column: "" if error is None else f"{100 * error:.2f}" for column, error in errors.items()}
        if with_points:
            cells["published points"] = "" if known.top1_points is None else f"{known.top1_points:+.2f}"
        cells["by"] = known.source
    return cells


def sweep_values(results: Sequence[VariantResult]) -> dict[str, Any]:
    """The results as plain values by variant, and every job; errors are fractions, folders relative to the sweep's."""
    return {
        "variants": {
            result.name: {
                "overrides": list(result.variant.overrides),
                "published": asdict(result.variant.published) if result.variant.published else None,
                "seeds": len(result.runs),
                **{key: _spread_values(measure.spread(result.runs)) for key, measure in MEASURES.items()},
                "above_baseline": {key: _spread_values(result.above_baseline(each)) for key, each in ERRORS.items()},
            }
            for result in results
        },
        "jobs": [_job_values(job) for result in results for job in result.jobs],
    }


def sweep_rows(results: Sequence[VariantResult]) -> Iterator[dict[str, Any]]:
    """The results as rows of one table: `row` is job, or median, lowest or highest over a variant's finished jobs."""
    for result in results:
        for job in result.jobs:
            yield {"row": "job", **_job_values(job)}
    for result in results:
        found = {key: _spread_values(measure.spread(result.runs)) or {} for key, measure in MEASURES.items()}
        for row in ("median", "lowest", "highest") if result.runs else ():
            numbers = {key: parts[row] for key, parts in found.items()}
            yield {"row": row, "variant": result.name, "seeds": len(result.runs), **numbers}
        published = result.variant.published
        if published:
            errors = {"top1_error": published.top1_error, "top5_error": published.top5_error}
            yield {"row": "published", "variant": result.name, **errors, "source": published.source}


ROW_KEYS = (
    *("row", "variant", "seed", "seeds", "status", "exit_code"),
    *MEASURES,
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
        **{key: measure.value(run) if run else None for key, measure in MEASURES.items()},
        "processes": run.summary.world_size if run else None,
        "run_dir": job.name,
    }


def _spread_values(found: Spread | None) -> dict[str, float] | None:
    return None if found is None else {"median": found.median, "lowest": found.lowest, "highest": found.highest}
