"""Runs all checks of a launch, one after another, and writes their report."""

import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from alexnet_mp.common.host import device_name, keep_large_blocks, usable_cores, versions
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.parallel.launch import Launch, own_command_line
from alexnet_mp.parallel.link_test import examined_link
from alexnet_mp.parallel.mesh import Mesh, open_mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.parallel.telemetry import open_telemetry
from alexnet_mp.performance.machine_check.link import Speed, link_result, measured_speeds, speed_results
from alexnet_mp.performance.machine_check.parity import parity_results
from alexnet_mp.performance.machine_check.settings import (
    CheckResult,
    CheckSettings,
    check_table,
    parse_check_settings,
)
from alexnet_mp.performance.machine_check.step import step_results

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
        checks = _Checks(settings, mesh)
        try:
            checks.carry_out()
        except Exception as error:
            stopped = f"stopped: {type(error).__name__}: {error}"
            checks.results.append(
                CheckResult(checks.running, "fail", stopped, what_to_do="the checks after it were not made")
            )
            _publish(checks, telemetry.words)
            raise
        _publish(checks, telemetry.words)
        mesh.gather([0.0])  # a process that ends with code 1 has torchrun end the main one, which must have written
    return not checks.failed


@dataclass
class _Checks:
    """What the checks have found so far; `running` is the one that an error would break off."""

    settings: CheckSettings
    mesh: Mesh
    results: list[CheckResult] = field(default_factory=list)
    not_deterministic: list[str] = field(default_factory=list)
    running: str = "link"

    @property
    def failed(self) -> bool:
        return any(result.result == "fail" for result in self.results)

    def carry_out(self) -> None:
        """All checks, in their order, with what one hands to the next."""
        settings, mesh = self.settings, self.mesh
        network, images = settings.network, settings.batch_size
        tested = examined_link(mesh, network, images)
        self.results.append(link_result(tested, mesh, network, images))
        self.running = "parity"
        found, self.not_deterministic = parity_results(settings, mesh, tested.link)
        self.results += found
        self.running = "speed"
        speeds: list[Speed] = []
        if tested.link is not None and tested.corrupt is not None:
            speeds = measured_speeds(mesh, tested.link, network, images, settings.rounds)
            self.results += speed_results(speeds)
        self.running = "step"
        self.results += step_results(settings, mesh, tested.link, speeds)


def _publish(checks: _Checks, nvml: str) -> None:
    """Print the table, and write the file that `json` names; from the main process alone."""
    if not checks.mesh.placement.is_main:
        return
    report = _report(checks, nvml)
    for name in ("network", "placement", "machine"):
        print(f"{name:<10} {report[name] if name != 'machine' else ', '.join(report['machine']['devices'])}")
    print(check_table(checks.results), flush=True)
    path = checks.settings.json
    if path:
        try:
            Path(path).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
        except OSError as error:
            raise ConfigurationError(f"cannot write json={path}: {error}") from error
        print(f"written to {path}, to attach to an issue")


def _report(checks: _Checks, nvml: str) -> dict[str, Any]:
    settings, placement = checks.settings, checks.mesh.placement
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    results = [asdict(result) for result in checks.results]
    for result in results:  # JSON has no infinity: a number that is not finite becomes null
        result["numbers"] = {name: x if math.isfinite(x) else None for name, x in result["numbers"].items()}
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
        # The main process's.
        "machine": {
            "system": platform.platform(),
            "devices": [device_name(device) for device in gpus or [torch.device("cpu")]],
            "cores": usable_cores(),
            "threads": torch.get_num_threads(),
        },
        "versions": versions() | _gpu_versions(),
        "nvml": nvml.split("\n"),
        "environment": {key: value for key, value in os.environ.items() if key.startswith(REPORTED_ENVIRONMENT)},
        "not_deterministic": checks.not_deterministic,
        "checks": results,
    }


def _gpu_versions() -> dict[str, str]:
    found = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    if torch.cuda.is_available() and dist.is_nccl_available():
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    return {name: str(version) for name, version in found.items() if version is not None}
