"""Sweeps for tests, with jobs that leave a run without training."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from alexnet_mp import ConfigurationError
from alexnet_mp.sweep.jobs import Job
from alexnet_mp.sweep.run import Sweep, run_sweep
from alexnet_mp.sweep.settings import parse_sweep_settings
from tests.support.presets import composed
from tests.support.runs import make_run


def compose(overrides: list[str]) -> Mapping[str, Any]:
    """As the command composes, but for seed and folder, so that most jobs share one composition."""
    *others, seed, run_dir = overrides
    own = {"seed": int(seed.removeprefix("seed=")), "run_dir": run_dir.removeprefix("run_dir='").removesuffix("'")}
    return {**composed("train", *others), **own}


TWO = {"lrn": [], "no_lrn": ["network.layers.lrn1=null"]}
PYTHON = [sys.executable, "-I", "-S", "-c"]


class Fake:
    """In torchrun's place: jobs that leave a run with the errors given by name, or fail with the others' last words."""

    def __init__(self, errors: dict[str, float], code: int = 3, says: str = "error: it broke") -> None:
        self.errors, self.code, self.says = errors, code, says
        self.started: list[str] = []

    def __call__(self, job: Job, processes: int) -> list[str]:
        self.started.append(job.name)
        if job.name not in self.errors:
            return [*PYTHON, f"import sys; print({self.says!r}); sys.exit({self.code})"]
        write_run(job, self.errors[job.name])
        return [*PYTHON, "print('trained')"]


def write_run(job: Job, error: float) -> None:
    make_run(job.run_dir, job.seed, "digits", error)
    (job.run_dir / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(dict(job.configuration))))


def configuration(out: Path, **changes: Any) -> dict[str, Any]:
    whole = {"out": str(out), "variants": TWO, "baseline": None, "seeds": [0, 1], "overrides": [], "processes": 1}
    return whole | {"parallel": 1} | changes


def sweep(out: Path, fake: Callable[[Job, int], list[str]], **changes: Any) -> tuple[Sweep, list[str]]:
    """A sweep and what it said."""
    said: list[str] = []
    return run_sweep(parse_sweep_settings(configuration(out, **changes)), compose, said.append, fake), said


def refusal(out: Path, fake: Callable[[Job, int], list[str]] | None = None, **changes: Any) -> str:
    with pytest.raises(ConfigurationError) as refused:
        sweep(out, fake or Fake({}), **changes)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def values(out: Path) -> dict[str, Any]:
    return json.loads((out / "sweep.json").read_text())


ALL = {"lrn/seed-0": 0.1, "lrn/seed-1": 0.4, "no_lrn/seed-0": 0.3, "no_lrn/seed-1": 0.5}
