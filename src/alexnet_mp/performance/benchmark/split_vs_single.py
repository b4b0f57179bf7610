"""The command behind `benchmarks/split_vs_single.py`: is splitting the network worth it on this machine?"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet_mp.common.cli import run_command
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.performance.benchmark.report import as_text
from alexnet_mp.performance.benchmark.rounds import Measured, choose_variants, run_rounds, total_threads
from alexnet_mp.performance.benchmark.settings import BenchmarkSettings, Setup, parse_benchmark_settings
from alexnet_mp.performance.benchmark.summary import summarize
from alexnet_mp.performance.benchmark.turn import VariantFailed


def run(configuration: Mapping[str, Any]) -> None:
    """Measure, print the table, and write the same numbers as JSON and as a chart where `json` and `chart` say."""
    settings = parse_benchmark_settings(configuration)
    started = Launch.from_environment()
    if started.world_size > 1:
        raise ConfigurationError(
            f"the benchmark starts its own processes and was started as {started.world_size}; use python, not torchrun"
        )
    measured = [_prepare(settings, setup) for setup in settings.setups()]
    threads = total_threads(settings, measured)
    load = os.getloadavg()[0]
    rounds = run_rounds(settings, measured, threads)
    report = summarize(settings, measured, rounds, threads, load)
    print(as_text(report))
    if settings.json:
        Path(settings.json).write_text(json.dumps(report, indent=2) + "\n")
    if settings.chart:
        from alexnet_mp.performance.benchmark.chart import (
            draw_comparison,  # matplotlib: not before there is something to draw
        )

        draw_comparison(report, Path(settings.chart))


def _prepare(settings: BenchmarkSettings, setup: Setup) -> Measured:
    names, left_out = choose_variants(settings, setup)
    return Measured(setup, left_out, {name: [] for name in names})


def main() -> None:
    """Entry point of `benchmarks/split_vs_single.py`; see `conf/split_vs_single.yaml` for the keys."""
    try:
        run_command("split_vs_single", run)
    except VariantFailed as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
