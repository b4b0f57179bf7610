"""What the jobs of a sweep found, by variant: numbers for files, and a table for a terminal that takes more columns."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from alexnet_mp.analysis.results.groups import Spread, spread
from alexnet_mp.analysis.results.record import RunRecord
from alexnet_mp.common.text import aligned
from alexnet_mp.sweep.jobs import Job
from alexnet_mp.sweep.settings import Published, Variant

Status = Literal["done", "failed", "stopped", "not started"]


@dataclass(frozen=True)
class Outcome:
    """What became of a job: `run` where it is done; `exit_code` and `error` where it failed or was stopped."""

    job: Job
    status: Status
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
    outcomes: tuple[Outcome, ...]
    baseline: "VariantResult | None" = None

    @property
    def runs(self) -> list[RunRecord]:
        return [outcome.run for outcome in self.outcomes if outcome.run is not None]

    def above_baseline(self, measure: Measure) -> Spread | None:
        """By how much a measure is above the baseline's with the same seed: median and range over common seeds."""
        if self.baseline is None:
            return None
        theirs = {run.summary.seed: measure.value(run) for run in self.baseline.runs}
        pairs = [(run.summary.seed, measure.value(run)) for run in self.runs]
        found = [value - theirs[seed] for seed, value in pairs if seed in theirs]
        return spread(found) if found else None

    def spread(self, measure: Measure) -> Spread | None:
        """Median and range over the finished runs, where there is one."""
        return spread([measure.value(run) for run in self.runs]) if self.runs else None


@dataclass(frozen=True)
class Column:
    """A column of the table on the terminal."""

    name: str
    cell: Callable[[VariantResult], str]


def columns_of(results: Sequence[VariantResult]) -> list[Column]:
    """Every measure, and the published numbers beside ours where a variant has some."""
    columns = [
        Column("variant", lambda result: result.name),
        Column("seeds", lambda result: _seeds(result)),
        *(_measured(measure) for measure in MEASURES),
    ]
    if any(result.baseline for result in results):
        columns.insert(3, Column("points above baseline", _above_baseline))
    if any(result.variant.published for result in results):
        columns += [
            Column("published top-1, %", lambda result: _published(result, "top1_error", 100)),
            Column("top-5, %", lambda result: _published(result, "top5_error", 100)),
            *_published_points(results),
            Column("by", lambda result: result.variant.published.source if result.variant.published else ""),
        ]
    return columns


def as_text(results: Sequence[VariantResult], columns: Sequence[Column]) -> str:
    """The table: one row a variant, medians with the range behind them."""
    rows = [[column.name for column in columns], *([column.cell(result) for column in columns] for result in results)]
    return "\n".join(aligned(rows))


def as_values(results: Sequence[VariantResult]) -> dict[str, Any]:
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
        "jobs": [_job_values(outcome) for result in results for outcome in result.outcomes],
    }


def as_rows(results: Sequence[VariantResult]) -> Iterator[dict[str, Any]]:
    """The same as rows of one table: `row` is job, or median, lowest or highest over a variant's finished jobs."""
    for result in results:
        for outcome in result.outcomes:
            yield {"row": "job", **_job_values(outcome)}
    for result in results:
        found = {measure.key: over for measure in MEASURES if (over := result.spread(measure))}
        for row, part in (("median", "median"), ("lowest", "low"), ("highest", "high")) if found else ():
            numbers = {key: getattr(over, part) for key, over in found.items()}
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


def _job_values(outcome: Outcome) -> dict[str, Any]:
    job, run = outcome.job, outcome.run
    return {
        "variant": job.variant,
        "seed": job.seed,
        "status": outcome.status,
        "exit_code": outcome.exit_code,
        "error": outcome.error or None,
        **{measure.key: measure.value(run) if run else None for measure in MEASURES},
        "processes": run.summary.world_size if run else None,
        "run_dir": job.name,
    }


def _spread_values(found: Spread | None) -> dict[str, float] | None:
    return None if found is None else {"median": found.median, "lowest": found.low, "highest": found.high}


def _seeds(result: VariantResult) -> str:
    done, all_of_them = len(result.runs), len(result.outcomes)
    return str(done) if done == all_of_them else f"{done} of {all_of_them}"


def _measured(measure: Measure) -> Column:
    return Column(measure.shown, lambda result: _in_words(result.spread(measure), measure.text))


def _above_baseline(result: VariantResult) -> str:
    """Of the top-1 error, in points of per cent."""
    return "" if result.baseline is None else _in_words(result.above_baseline(ERRORS[0]), lambda x: f"{100 * x:+.2f}")


def _in_words(found: Spread | None, words: Callable[[float], str]) -> str:
    if found is None:
        return "-"
    median = words(found.median)
    return median if found.count == 1 else f"{median} ({words(found.low)} to {words(found.high)})"


def _published_points(results: Sequence[VariantResult]) -> list[Column]:
    if not any(result.variant.published and result.variant.published.top1_points is not None for result in results):
        return []
    return [Column("published points", lambda result: _published(result, "top1_points", 1))]


def _published(result: VariantResult, key: Literal["top1_error", "top5_error", "top1_points"], factor: float) -> str:
    published: Published | None = result.variant.published
    value = None if published is None else getattr(published, key)
    return "" if value is None else f"{factor * value:{'+.2f' if key == 'top1_points' else '.2f'}}"
