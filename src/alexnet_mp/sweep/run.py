"""Runs a whole sweep, from the settings to the tables."""

import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from alexnet_mp.analysis.results.record import read_run
from alexnet_mp.common.text import count
from alexnet_mp.errors import ConfigurationError, explained
from alexnet_mp.sweep.folder import check_definition, sweep_lock, write_sweep_results
from alexnet_mp.sweep.jobs import Compose, Job, finished_run, make_jobs, torchrun_command
from alexnet_mp.sweep.processes import job_environment, last_error, run_jobs, start_process
from alexnet_mp.sweep.results import MEASURES, JobResult, VariantResult, sweep_table
from alexnet_mp.sweep.settings import SweepSettings

CommandOf = Callable[[Job, int], list[str]]  # a job and its number of processes -> the command that runs it


@dataclass
class Sweep:
    """A sweep that runs: what has become of its jobs so far.

    `command` is the command line that asked for it, if there is one. `stopped` is the signal that ends it early;
    `unwritten` says why its files are not up to date, if they are not.
    """

    settings: SweepSettings
    out: Path
    say: Callable[[str], None]
    jobs: dict[Job, JobResult]
    command: str | None = None
    log_starts: dict[Job, int] = field(default_factory=dict)
    stopped: signal.Signals | None = None
    unwritten: str = ""

    @property
    def failed(self) -> list[JobResult]:
        return [result for result in self.jobs.values() if result.status == "failed"]

    def results(self) -> list[VariantResult]:
        """What was found by variant, in the settings' order."""
        found = {
            name: VariantResult(name, variant, tuple(each for each in self.jobs.values() if each.job.variant == name))
            for name, variant in self.settings.variants.items()
        }
        baseline = found.get(self.settings.baseline or "")
        return [result if result is baseline else replace(result, baseline=baseline) for result in found.values()]

    def ended(self, job: Job, code: int | OSError, stopped: signal.Signals | None) -> None:
        """A job's process has ended, or could not be started: note what it found, say so, and write it down."""
        result = self.jobs[job] = _result(job, code, self.log_starts.get(job, 0), stopped)
        self.say(f"[{list(self.jobs).index(job) + 1}/{len(self.jobs)}] {job.name}: {_in_words(result)}")
        try:
            write_sweep_results(self.out, self.settings, self.results(), self.command)
            self.unwritten = ""
        except OSError as error:  # the jobs that run, and those to come, write on disks of their own perhaps
            self.unwritten = f"cannot write the results into {self.out}: {error}"
            self.say(self.unwritten)

    def stopping(self, stopped: signal.Signals) -> None:
        """A signal has come and was handed on."""
        self.stopped = stopped
        self.say(f"{stopped.name}: waiting for the jobs that run to save and end; the same command goes on from there")


def run_sweep(
    settings: SweepSettings,
    compose: Compose,
    say: Callable[[str], None],
    command_of: CommandOf = torchrun_command,
    command: str | None = None,
) -> Sweep:
    """Run every job that is not done, and keep the tables in `out` up to date with each that ends.

    `say` gets one line a job, and the table at the end. A job that fails does not keep the others from running.
    `command`, the command line that asked for it, is noted in the tables. Call it from the main thread, for the sake of
    signals. Raises ConfigurationError before the first job if the configuration of one is wrong, or `out` is not this
    sweep's.
    """
    out = Path(settings.out).absolute()
    jobs = make_jobs(settings, compose)
    with sweep_lock(out) as lock:
        check_definition(out, settings)
        before = {job: finished_run(job) for job in jobs}
        sweep = Sweep(
            settings,
            out,
            say,
            {job: JobResult(job, "done" if run else "not started", run) for job, run in before.items()},
            command,
        )
        missing = [job for job, run in before.items() if run is None]
        with explained(f"cannot write out={out}"):
            write_sweep_results(out, settings, sweep.results(), command)
        sizes = [(jobs, "job"), (settings.variants, "variant"), (settings.seeds, "seed")]
        total, variants, seeds = (count(len(each), thing) for each, thing in sizes)
        done = f"; {len(jobs) - len(missing)} done before" if len(missing) < len(jobs) else ""
        say(f"{total}: {variants} x {seeds}{done}; out: {out}, what job VARIANT/seed-N prints: VARIANT/seed-N.log")
        environment = job_environment(settings.parallel, settings.processes)

        def start(job: Job) -> "subprocess.Popen[bytes]":
            sweep.log_starts[job] = job.log.stat().st_size if job.log.exists() else 0
            return start_process(job, command_of(job, settings.processes), environment, lock)

        run_jobs(missing, settings.parallel, start, sweep.ended, sweep.stopping)
    say(f"\n{sweep_table(sweep.results())}\n")
    return sweep


def _result(job: Job, code: int | OSError, log_start: int, stopped: signal.Signals | None) -> JobResult:
    if isinstance(code, OSError):
        return JobResult(job, "failed", error=f"cannot be started: {code}")
    if code == 0:
        try:
            return JobResult(job, "done", read_run(job.run_dir), code)
        except ConfigurationError as error:
            return JobResult(job, "failed", exit_code=code, error=str(error))
    if stopped is not None:
        return JobResult(job, "stopped", exit_code=code, error=stopped.name)
    return JobResult(job, "failed", exit_code=code, error=last_error(job.log, log_start))


def _in_words(result: JobResult) -> str:
    if result.run is not None:
        found = [
            (measure.shown.partition(", %"), measure.text(measure.value(result.run))) for measure in MEASURES.values()
        ]
        return "done, " + ", ".join(f"{name} {text}{' %' if unit else ''}" for (name, unit, _), text in found)
    if result.status == "stopped":
        return f"stopped by {result.error}"
    if result.exit_code is None:
        return f"failed, {result.error}"
    return f"failed with exit code {result.exit_code}: {result.error} (log: {result.job.log})"
