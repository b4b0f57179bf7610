"""Runs all checks of a launch, one after another, and writes their report."""

import json
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from alexnet_mp.common.host import device_name, keep_large_blocks, usable_cores, versions
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.parallel.launch import Launch, own_command_line
from alexnet_mp.parallel.link_test import examined_link
from alexnet_mp.parallel.mesh import Mesh, open_mesh
from alexnet_mp.parallel.placement import Placement, choose_placement
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
    results: list[CheckResult] = []
    not_deterministic: list[str] = []
    running = "link"
    with open_mesh(placement, settings.timeout_seconds) as mesh, open_telemetry(placement) as telemetry:
        try:
            for found, following in _checks(settings, mesh, not_deterministic):
                results += found
                running = following
        except BaseException as error:
            stopped = f"stopped: {type(error).__name__}: {error}"
            results.append(CheckResult(running, "fail", stopped, what_to_do="the checks after it were not made"))
            raise
        finally:
            if placement.is_main:
                about = {"nvml": telemetry.words.split("\n"), "not_deterministic": not_deterministic}
                _publish(_report(settings, placement, results, about), results, settings.json)
        mesh.gather([0.0])  # a process that ends with code 1 has torchrun end the main one, which must have written
    return not _failed(results)


def _checks(
    settings: CheckSettings, mesh: Mesh, not_deterministic: list[str]
) -> Iterator[tuple[list[CheckResult], str]]:
    """All checks, in their order, with what one hands to the next: what each found, and the name of the one after it.

    Adds to `not_deterministic` what has no deterministic implementation here.
    """
    network, images = settings.network, settings.batch_size
    tested = examined_link(mesh, network, images)
    yield [link_result(tested, mesh, network, images)], "parity"
    found, without = parity_results(settings, mesh, tested.link)
    not_deterministic += without
    yield found, "speed"
    speeds: list[Speed] = []
    if tested.link is not None and tested.corrupt is not None:
        speeds = measured_speeds(mesh, tested.link, network, images, settings.rounds)
    yield speed_results(speeds) if speeds else [], "step"
    yield step_results(settings, mesh, tested.link, speeds), ""


def _failed(results: Sequence[CheckResult]) -> bool:
    return any(result.result == "fail" for result in results)


def _publish(report: Mapping[str, Any], results: Sequence[CheckResult], path: str | None) -> None:
    """Print the table, and write the file that `json` names."""
    for name in ("network", "placement", "machine"):
        print(f"{name:<10} {report[name] if name != 'machine' else ', '.join(report['machine']['devices'])}")
    print(check_table(results), flush=True)
    if path:
        try:
            Path(path).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", "utf-8")
        except OSError as error:
            raise ConfigurationError(f"cannot write json={path}: {error}") from error
        print(f"written to {path}, to attach to an issue")


def _report(
    settings: CheckSettings, placement: Placement, results: Sequence[CheckResult], about: Mapping[str, Any]
) -> dict[str, Any]:
    """The file: the launch, the main process's machine, `about`, and every check."""
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    checks = [asdict(result) for result in results]
    for check in checks:  # JSON has no infinity: a number that is not finite becomes null
        check["numbers"] = {name: x if math.isfinite(x) else None for name, x in check["numbers"].items()}
    return {
        "passed": not _failed(results),
        "command": own_command_line("launch/check.py", placement.launch, but="json"),
        "network": settings.network.name,
        "towers": settings.network.towers,
        "batch_size": settings.batch_size,
        "rounds": settings.rounds,
        "seed": settings.seed,
        "placement": placement.in_words(),
        "world_size": placement.launch.world_size,
        "replicas": placement.replicas,
        "machine": {
            "system": platform.platform(),
            "devices": [device_name(device) for device in gpus or [torch.device("cpu")]],
            "cores": usable_cores(),
            "threads": torch.get_num_threads(),
        },
        "versions": versions() | _gpu_versions(),
        "environment": {key: value for key, value in os.environ.items() if key.startswith(REPORTED_ENVIRONMENT)},
        **about,
        "checks": checks,
    }


def _gpu_versions() -> dict[str, str]:
    found = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    if torch.cuda.is_available() and dist.is_nccl_available():
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    return {name: str(version) for name, version in found.items() if version is not None}
