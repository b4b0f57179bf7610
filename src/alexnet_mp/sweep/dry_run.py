"""Tries a sweep: every job is composed and checked, and one of each variant trains a step; writes nothing."""

import subprocess
from collections.abc import Callable
from dataclasses import replace

from alexnet_mp.common.text import count
from alexnet_mp.sweep.jobs import Compose, Job, make_jobs
from alexnet_mp.sweep.processes import job_environment
from alexnet_mp.sweep.settings import SweepSettings


def try_sweep(
    settings: SweepSettings, compose: Compose, say: Callable[[str], None], command_of: Callable[[Job, int], list[str]]
) -> list[str]:
    """Train one step of every variant, with the first seed, one after another; return the jobs that failed.

    `say` gets what each prints, or its one line of error. Raises ConfigurationError as `run_sweep` does.
    """
    jobs = make_jobs(settings, compose)
    say(f"{count(len(jobs), 'job')}; one step of each variant, and nothing is written")
    failed = []
    for job in (each for each in jobs if each.seed == settings.seeds[0]):
        tried = replace(job, overrides=(*job.overrides, "dry_run=true"))
        command, environment = command_of(tried, settings.processes), job_environment(1, settings.processes)
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        if ended.returncode:
            failed.append(job.name)
        errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")] or [
            "error: see launch/train.py"
        ]
        say(f"\n{job.name}\n{errors[0] if ended.returncode else ended.stdout.rstrip()}")
    return failed
