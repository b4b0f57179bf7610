"""Makes the jobs of a sweep, each with its overrides and command, and checks all before the first starts."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from alexnet_mp.analysis.results.record import RunRecord, read_run
from alexnet_mp.common.cli import quoted_value
from alexnet_mp.common.schema import differences
from alexnet_mp.errors import ConfigurationError, explained
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.sweep.settings import SweepSettings
from alexnet_mp.training.config import gives_classes, parse_train_settings

Compose = Callable[[list[str]], Mapping[str, Any]]  # overrides -> the composed configuration of conf/train.yaml


@dataclass(frozen=True)
class Job:
    """One training run of a sweep; `run_dir` is out/<variant>/seed-<n>, absolute.

    `configuration` is what its `overrides` make of `conf/train.yaml`.
    """

    variant: str
    seed: int
    run_dir: Path
    overrides: tuple[str, ...]
    configuration: Mapping[str, Any] = field(compare=False, repr=False)

    @property
    def name(self) -> str:
        return f"{self.variant}/seed-{self.seed}"

    @property
    def log(self) -> Path:
        """The file of its output, beside its folder, which is the training run's own."""
        return self.run_dir.with_name(f"{self.run_dir.name}.log")


def make_jobs(settings: SweepSettings, compose: Compose) -> list[Job]:
    """Every variant with every seed, in the order of the variants; of one variant, by seed.

    Each one's configuration is composed and checked as the training run itself will. Raises ConfigurationError that
    names the variant.
    """
    out = Path(settings.out).absolute()
    launch = Launch(world_size=settings.processes, local_world_size=settings.processes)
    jobs = []
    for name, variant in settings.variants.items():
        for seed in settings.seeds:
            run_dir = out / name / f"seed-{seed}"
            asked = (*settings.overrides, *variant.overrides, f"seed={seed}", f"run_dir={quoted_value(str(run_dir))}")
            with explained(f"variant {name}", ConfigurationError):
                configuration = compose(list(asked))
                training = parse_train_settings(configuration)
                if training.run_dir != str(run_dir):
                    raise ConfigurationError(f"out={out} cannot be handed to a job, it becomes {training.run_dir}")
                towers, layers = training.network.towers, training.network.learned_layers
                asked_for = (training.placement, training.device, towers, launch)
                placement = choose_placement(*asked_for, link=training.link)
                training.on_replicas(placement.replicas).recipe.check(layers, placement.replicas)
            jobs.append(Job(name, seed, run_dir, asked, configuration))
    return jobs


def torchrun_command(job: Job, processes: int, presets: Path | None = None) -> list[str]:
    """The command of one job: a torchrun of its own, on a free port.

    `presets` is a folder of presets of the user's own, absolute.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    own = [] if presets is None else ["--config-dir", str(presets)]
    return [*launcher, "-m", "alexnet_mp.commands.train", *own, *job.overrides]


def finished_run(job: Job) -> RunRecord | None:
    """What the job found if it was run to its end before; None if it must be started, or started again.

    Raises ConfigurationError if its folder holds a finished run of another configuration, or a damaged one.
    """
    if not (job.run_dir / "summary.json").exists():
        return None
    run = read_run(job.run_dir)
    # As it comes back from a run's `config.yaml`. A sweep that was moved has other folders, and a job that does not say
    # how many classes there are has those of its data.
    written = yaml.safe_load(OmegaConf.to_yaml(OmegaConf.create(dict(job.configuration))))
    ours, theirs = ({**each, "run_dir": None, "dry_run": None} for each in (written, run.configuration))
    if not gives_classes(job.overrides) and isinstance(theirs.get("network"), Mapping):
        ours["network"] = {**ours["network"], "classes": theirs["network"].get("classes")}
    differing = differences(theirs, ours, "")
    if differing:
        raise ConfigurationError(
            f"{job.run_dir} holds a finished run of another configuration: {'; '.join(differing)}; "
            "choose another out, or move that folder away"
        )
    return run
