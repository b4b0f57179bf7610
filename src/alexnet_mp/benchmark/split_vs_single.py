"""The command behind `benchmarks/split_vs_single.py`: is splitting the network worth it on this machine?"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet_mp.benchmark.report import as_text, summarise
from alexnet_mp.benchmark.rounds import ContenderFailed, choose_contenders, run_rounds, total_threads
from alexnet_mp.benchmark.settings import parse_benchmark_settings
from alexnet_mp.commands.entry import run_command
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.placement import Launch


def run(configuration: Mapping[str, Any]) -> None:
    """Measure, print the table, and write the same numbers as JSON where `json` says."""
    settings = parse_benchmark_settings(configuration)
    started = Launch.from_environment()
    if started.world_size > 1:
        raise ConfigurationError(
            f"the benchmark starts its own processes and was started as {started.world_size}; use python, not torchrun"
        )
    names, left_out = choose_contenders(settings)
    threads = total_threads(settings, names)
    load = os.getloadavg()[0]
    report = summarise(settings, run_rounds(settings, names, threads), left_out, threads, load)
    print(as_text(report))
    if settings.json:
        Path(settings.json).write_text(json.dumps(report, indent=2) + "\n")


def main() -> None:
    """Entry point of `benchmarks/split_vs_single.py`; see `conf/split_vs_single.yaml` for the keys."""
    try:
        run_command("split_vs_single", run)
    except ContenderFailed as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
