"""Write the report of a run as one HTML page: python launch/report.py run_dir=runs/digits/TIME."""

import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from alexnet_mp.analysis.report.checkpoint_analysis import ReportOptions
from alexnet_mp.analysis.report.page import write_report
from alexnet_mp.analysis.results.groups import PublishedResult
from alexnet_mp.common.cli import Configuration, run_command, show
from alexnet_mp.common.device import use_threads
from alexnet_mp.common.schema import PositiveInt, from_mapping


@dataclass(frozen=True)
class ReportSettings(ReportOptions):
    """The keys of `conf/report.yaml`."""

    run_dir: str
    out: str | None
    threads: PositiveInt | None
    published: dict[str, PublishedResult]


def run(configuration: Configuration) -> None:
    """Write the page; print its path, and what is not on it."""
    settings = from_mapping(ReportSettings, configuration, "")
    use_threads(settings.threads)
    folder = Path(settings.run_dir)
    out = Path(settings.out) if settings.out else folder / "report.html"
    for what in write_report(folder, out, settings, settings.published, _command(settings)):
        show(f"missing  {what}")
    show(f"wrote    {out}")


def _command(settings: ReportSettings) -> str:
    """What makes the same page again, from the folder in which this was started."""
    places = {"run_dir": settings.run_dir, "data.path": settings.data.path, "out": settings.out}
    counts = {"images": settings.images, "examples": settings.examples, "seed": settings.seed}
    said = [f"{key}={value}" for key, value in {**places, **counts}.items() if value is not None]
    return shlex.join(["python", "launch/report.py", *said])


main = partial(run_command, "report", run)  # what launch/report.py calls

if __name__ == "__main__":
    main()
