"""The command behind `benchmarks/split_vs_single.py`: is splitting the network worth it on this machine?"""

import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from alexnet_mp.common.cli import run_command
from alexnet_mp.common.disk import write_files
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.errors import explained
from alexnet_mp.performance.benchmark.efficiency import processes_text, summarize_processes
from alexnet_mp.performance.benchmark.output import publish
from alexnet_mp.performance.benchmark.report import variants_text
from alexnet_mp.performance.benchmark.rounds import choose_threads, choose_variants, run_rounds
from alexnet_mp.performance.benchmark.settings import BenchmarkSettings
from alexnet_mp.performance.benchmark.summary import about_the_run, summarize_variants
from alexnet_mp.performance.benchmark.turn import VariantFailed
from alexnet_mp.performance.cost_model.hardware import load_hardware


def run(configuration: Mapping[str, Any]) -> None:
    """Measure, print the table, and write the same numbers as JSON and as a chart where `json` and `chart` say.

    Raises VariantFailed if a turn failed, once all that was finished is printed and written.
    """
    settings = from_mapping(BenchmarkSettings, configuration, "")
    hardware = load_hardware(settings.hardware) if settings.hardware else None
    measured = [choose_variants(settings, setup) for setup in settings.setups()]
    threads = choose_threads(settings, measured)
    load = os.getloadavg()[0]
    rounds, repeated = run_rounds(settings, measured, threads)
    failed = [why for each in measured for why in each.failed.values()]
    finished = [each for each in measured if any(each.turns.values())]
    if not finished or (
        settings.processes and finished[0] is not measured[0]
    ):  # nothing to compare, or to compare with
        raise VariantFailed("; ".join(failed))
    about = about_the_run(settings, finished, {"rounds": rounds, "repeated_turns": repeated}, threads, load)
    if settings.processes:
        report = summarize_processes(settings, finished, threads, hardware, about)
        publish(report, processes_text(report), settings.json)
    else:
        report = summarize_variants(finished, about)
        publish(report, variants_text(report), settings.json)
    if settings.chart:
        # Here, for matplotlib takes long to load.
        from alexnet_mp.performance.benchmark.chart import draw_variants

        chart = Path(settings.chart)
        with explained(f"cannot write chart={chart}"):
            write_files(chart.parent, {chart.name: partial(draw_variants, report)})
    if failed:
        raise VariantFailed("; ".join(failed))


def main() -> None:
    """Entry point of `benchmarks/split_vs_single.py`; see `conf/benchmark/split_vs_single.yaml` for the keys."""
    try:
        run_command("benchmark/split_vs_single", run)
    except VariantFailed as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
