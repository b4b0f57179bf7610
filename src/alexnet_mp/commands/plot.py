"""Draw a run, or several: python launch/plot.py run_dir=RUN; see `conf/plot.yaml` for the figures and keys."""

from functools import partial

from alexnet_mp.analysis.figures.plot import plot
from alexnet_mp.analysis.figures.settings import PlotSettings
from alexnet_mp.common.cli import Configuration, run_command, show
from alexnet_mp.common.schema import from_mapping


def run(configuration: Configuration) -> None:
    """Draw the figures; print their paths, and what they found."""
    for line in plot(from_mapping(PlotSettings, configuration, "")):
        show(line)


main = partial(run_command, "plot", run)  # what launch/plot.py calls

if __name__ == "__main__":
    main()
