"""Write the page of results: python launch/results.py runs=[runs/a,runs/b] out=docs."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from alexnet_mp.analysis.results.groups import PublishedResult
from alexnet_mp.analysis.results.page import write_results_page
from alexnet_mp.common.cli import Configuration, run_command, show
from alexnet_mp.common.schema import from_mapping


@dataclass(frozen=True)
class ResultsSettings:
    """The keys of `conf/results.yaml`."""

    runs: tuple[str, ...]
    sweeps: tuple[str, ...]
    out: str
    published: dict[str, PublishedResult]


def run(configuration: Configuration) -> None:
    """Write the page and its pictures; print their paths."""
    settings = from_mapping(ResultsSettings, configuration, "")
    for path in write_results_page(settings.runs, Path(settings.out), settings.published, settings.sweeps):
        show(f"wrote {path}")


main = partial(run_command, "results", run)  # what launch/results.py calls

if __name__ == "__main__":
    main()
