"""Train variants with several seeds each: python launch/sweep.py sweep=lrn out=FOLDER; see `conf/sweep.yaml`."""

import sys
from functools import partial

from alexnet_mp.common.cli import Configuration, compose, own_presets, run_command, show
from alexnet_mp.errors import ConfigurationError, explained
from alexnet_mp.parallel.launch import own_python_command
from alexnet_mp.performance.dry_run import try_run
from alexnet_mp.sweep.jobs import Job, make_jobs, torchrun_command
from alexnet_mp.sweep.run import run_sweep
from alexnet_mp.sweep.settings import CSV_FILE, JSON_FILE, parse_sweep_settings
from alexnet_mp.training.config import gives_classes


def run(configuration: Configuration) -> None:
    """Run the sweep and print one line a job, and the table.

    Exits with 1 if a job has failed or the results could not be written, and with 128 and the signal's number, as a
    shell says it, if a signal stopped it.
    """
    settings, command = parse_sweep_settings(configuration), own_python_command("launch/sweep.py")
    presets = own_presets()
    command_of = partial(torchrun_command, presets=presets)
    compose_job = partial(compose, "train", presets=presets)
    if settings.dry_run:
        _try(make_jobs(settings, compose_job))
        return
    sweep = run_sweep(settings, compose_job, show, command_of, command)
    show(f"wrote {sweep.out / JSON_FILE} and {CSV_FILE}")
    if sweep.stopped:
        sys.exit(128 + sweep.stopped)
    if sweep.failed:
        print(f"error: {len(sweep.failed)} of {len(sweep.jobs)} jobs failed", file=sys.stderr)
    if sweep.unwritten:
        print(f"error: {sweep.unwritten}", file=sys.stderr)
    if sweep.failed or sweep.unwritten:
        sys.exit(1)


def _try(jobs: list[Job]) -> None:
    """Try the first job of each variant in this process. Raises ConfigurationError, which names the variant."""
    firsts = {job.variant: job for job in reversed(jobs)}
    for job in [job for job in jobs if firsts[job.variant] is job]:
        with explained(f"variant {job.variant}", ConfigurationError):
            tried = {**job.configuration, "dry_run": True, "placement": "auto"}
            show(f"{job.name}\n{try_run(tried, classes_of_data=not gives_classes(job.overrides))}\n")
    show(f"tried {len(firsts)} of {len(jobs)} jobs, each in one process, whatever processes= says")


main = partial(run_command, "sweep", run)  # what launch/sweep.py calls

if __name__ == "__main__":
    main()
