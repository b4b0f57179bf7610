"""All checks of a launch, one after another, and the report that they leave."""

import json
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from alexnet_mp.common.host import device_name, keep_large_blocks, usable_cores, versions
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.parallel.launch import Launch, own_command_line
from alexnet_mp.parallel.link_test import examined_link
from alexnet_mp.parallel.links import Link
from alexnet_mp.parallel.mesh import Mesh, open_mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.parallel.telemetry import open_telemetry
from alexnet_mp.performance.machine_check.link import Speed, link_outcome, measured_speeds, speed_outcomes
from alexnet_mp.performance.machine_check.outcome import Outcome, as_table
from alexnet_mp.performance.machine_check.parity import parity_outcomes
from alexnet_mp.performance.machine_check.settings import CheckSettings, parse_check_settings
from alexnet_mp.performance.machine_check.step import step_outcomes

REPORTED_ENVIRONMENT = ("NCCL_", "CUDA_", "OMP_", "TORCH_NCCL_", "GLOO_")


def run_checks(configuration: Mapping[str, Any]) -> bool:
    """Carry out every check, print the table and write the file; every process of the launch calls it.

    Returns, in every process, whether nothing failed.
    """
    # Read by cuBLAS when it starts: without it, its sums may differ from run to run (PyTorch, "Reproducibility").
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    keep_large_blocks()
    settings = parse_check_settings(configuration)
    launch = Launch.from_environment()
    placement = choose_placement(settings.placement, settings.device, settings.network.towers, launch)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with open_mesh(placement, settings.timeout_seconds) as mesh, open_telemetry(placement) as telemetry:
        checks, running = _Checks(settings, mesh), ""
        try:
            for running, check in checks.in_order():  # noqa: B007 - the handler below says which it was
                checks.outcomes += check()
        except Exception as error:
            stopped = f"stopped: {type(error).__name__}: {error}"
            checks.outcomes.append(Outcome(running, "fail", stopped, what_to_do="the checks after it were not made"))
            _publish(checks, telemetry.words)
            raise
        _publish(checks, telemetry.words)
        mesh.gather([0.0])  # a process that ends with code 1 has torchrun end the main one, which must have written
    return not checks.failed


class _Checks:
    """The checks in their order, with what one hands to the next."""

    def __init__(self, settings: CheckSettings, mesh: Mesh) -> None:
        self.settings = settings
        self.mesh = mesh
        self.outcomes: list[Outcome] = []
        self.not_deterministic: list[str] = []
        self._link: Link | None = None
        self._is_carried = False
        self._speeds: list[Speed] = []

    @property
    def failed(self) -> bool:
        return any(outcome.result == "fail" for outcome in self.outcomes)

    def in_order(self) -> list[tuple[str, Callable[[], Sequence[Outcome]]]]:
        """By the name under which a check is reported that does not get to its end."""
        return [("link", self._test_link), ("parity", self._parity), ("speed", self._speed), ("step", self._step)]

    def _test_link(self) -> list[Outcome]:
        settings = self.settings
        tested = examined_link(self.mesh, settings.network, settings.batch_size)
        self._link, self._is_carried = tested.link, tested.corrupt is not None
        return [link_outcome(tested, self.mesh, settings.network, settings.batch_size)]

    def _parity(self) -> list[Outcome]:
        outcomes, self.not_deterministic = parity_outcomes(self.settings, self.mesh, self._link)
        return outcomes

    def _speed(self) -> list[Outcome]:
        if self._link is None or not self._is_carried:
            return []
        settings = self.settings
        self._speeds = measured_speeds(self.mesh, self._link, settings.network, settings.batch_size, settings.rounds)
        return speed_outcomes(self._speeds)

    def _step(self) -> list[Outcome]:
        return step_outcomes(self.settings, self.mesh, self._link, self._speeds)


def _publish(checks: _Checks, nvml: str) -> None:
    """Print the table, and write the file where `json` says; from the main process alone."""
    if not checks.mesh.placement.is_main:
        return
    report = _report(checks, nvml)
    for name in ("network", "placement", "machine"):
        print(f"{name:<10} {report[name] if name != 'machine' else ', '.join(report['machine']['devices'])}")
    print(as_table(checks.outcomes), flush=True)
    path = checks.settings.json
    if path:
        try:
            Path(path).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
        except OSError as error:
            raise ConfigurationError(f"cannot write json={path}: {error}") from error
        print(f"written to {path}, to attach to an issue")


def _report(checks: _Checks, nvml: str) -> dict[str, Any]:
    settings, placement = checks.settings, checks.mesh.placement
    return {
        "passed": not checks.failed,
        "command": own_command_line("launch/check.py", placement.launch, but="json"),
        "network": settings.network.name,
        "towers": settings.network.towers,
        "batch_size": settings.batch_size,
        "rounds": settings.rounds,
        "seed": settings.seed,
        "placement": placement.in_words(),
        "world_size": placement.launch.world_size,
        "replicas": placement.replicas,
        "machine": _machine(),
        "versions": versions() | _gpu_versions(),
        "nvml": nvml.split("\n"),
        "environment": {key: value for key, value in os.environ.items() if key.startswith(REPORTED_ENVIRONMENT)},
        "not_deterministic": checks.not_deterministic,
        "checks": [_finite(asdict(outcome)) for outcome in checks.outcomes],
    }


def _machine() -> dict[str, Any]:
    """The main process's."""
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return {
        "system": platform.platform(),
        "devices": [device_name(device) for device in gpus or [torch.device("cpu")]],
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
    }


def _gpu_versions() -> dict[str, str]:
    found = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    if torch.cuda.is_available() and dist.is_nccl_available():
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    return {name: str(version) for name, version in found.items() if version is not None}


def _finite(outcome: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: a number that is not finite becomes null."""
    numbers = {name: value if math.isfinite(value) else None for name, value in outcome["numbers"].items()}
    return outcome | {"numbers": numbers}
