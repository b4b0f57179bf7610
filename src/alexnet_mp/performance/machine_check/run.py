"""Makes the parts of a check one after another, and writes their report: a table, a file and a page."""

import json
import math
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from alexnet_mp.analysis.report.template import render
from alexnet_mp.common.device import set_precision, use_threads
from alexnet_mp.common.disk import regular
from alexnet_mp.common.host import device_name, keep_large_blocks, usable_cores, versions
from alexnet_mp.common.schema import choice
from alexnet_mp.errors import PeerLost, explained
from alexnet_mp.parallel.launch import own_command_line
from alexnet_mp.parallel.mesh import Mesh, needing_all, open_mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.parallel.telemetry import open_telemetry
from alexnet_mp.performance.machine_check.child_runs import killed_and_resumed, sanitizer_results
from alexnet_mp.performance.machine_check.link import crossing_results, link_results, under_load, why_nothing_is_carried
from alexnet_mp.performance.machine_check.on_gpus import stall_result, step_on_gpus
from alexnet_mp.performance.machine_check.parity import parity_results
from alexnet_mp.performance.machine_check.settings import Check, CheckResult, check_table, parse_check_settings
from alexnet_mp.performance.machine_check.step import step_results
from alexnet_mp.performance.machine_check.throughput import throughput_results

REPORTED_ENVIRONMENT = ("NCCL_", "CUDA_", "OMP_", "TORCH_NCCL_", "GLOO_")


Part = Callable[[Check], list[CheckResult]]
Needs = Callable[[Check], str | None]  # why a part cannot be made here; the same in every process


def _link(check: Check) -> str | None:
    lacking = check.link is None and check.settings.network.towers > 1
    return "the test of the link did not come to its end" if lacking else None


def _two_places(check: Check) -> str | None:
    carried = check.mesh.placement.kind != "simulated" and check.settings.network.towers > 1
    return _link(check) if carried else why_nothing_is_carried(check.settings.network)


def _gpus(check: Check) -> str | None:
    return _link(check) if check.mesh.placement.on_gpus else "needs a GPU"


def _nvml(check: Check) -> list[CheckResult]:
    """The readings that the main process takes of its replica's GPUs."""
    readings = check.telemetry.metrics()
    words = [*check.telemetry.words.split("\n"), *(f"{name} {value:g}" for name, value in readings.items())]
    return [CheckResult("NVML", "measured" if readings else "not possible here", "; ".join(words), readings)]


PARTS: dict[str, tuple[Part, Needs]] = {
    "link": (link_results, _two_places),
    "link under load": (under_load, _two_places),
    "parity": (parity_results, _link),
    "crossings": (crossing_results, _two_places),
    "step": (step_results, _link),
    "throughput": (throughput_results, _link),
    "CUDA sanitizer": (sanitizer_results, _gpus),
    "step on GPUs": (step_on_gpus, _gpus),
    "stalled GPU": (stall_result, _gpus),
    "kill and resume": (killed_and_resumed, lambda _: None),
    "NVML": (_nvml, lambda _: None),
}


def run_checks(configuration: Mapping[str, Any]) -> bool:
    """Make every part, print the table and write file and page; every process of the launch calls it.

    Returns, in every process, whether nothing failed.
    """
    # Read by cuBLAS when it starts: without it, its sums may differ from run to run (PyTorch, "Reproducibility").
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    keep_large_blocks()
    settings = parse_check_settings(configuration)
    names = [choice(name, PARTS, "parts") for name in settings.parts or PARTS]
    placement = choose_placement(settings.placement, settings.device, settings.network.towers, link=settings.link)
    set_precision("float32")
    use_threads(settings.threads, placement.launch.local_world_size, says=placement.launch.local_rank == 0)
    results: list[CheckResult] = []
    joined = open_mesh(placement, settings.timeout_seconds, settings.link)
    with joined as mesh, open_telemetry(placement) as telemetry:
        check, everyone = Check(settings, mesh, mesh.link(), telemetry), _agreement(mesh)
        made = 0
        try:
            for made, found in enumerate(_make(check, names, everyone), 1):
                results += found
                if placement.is_main and made < len(names):  # it is there whatever the next part does to this process
                    _write(_report(check, results, complete=False), settings.json)
        finally:
            if placement.is_main:
                _publish(_report(check, results, made == len(names)), results, settings.json)
        # A process that ends with code 1 has torchrun end the main one, which must have written.
        return not any(everyone(float(_failed(results))))


def _agreement(mesh: Mesh) -> Callable[[float], list[float]]:
    """Gives every process's value, by rank, over a group of its own: some may still wait in a part's exchanges."""
    timeout = timedelta(seconds=3 * mesh.timeout_seconds)  # those that wait give up after one, and come here
    group = dist.new_group(backend="gloo", timeout=timeout) if mesh.axes else None

    def everyone(value: float) -> list[float]:
        values = [torch.tensor([value]) for _ in range(mesh.placement.launch.world_size)]
        if group is not None:
            with needing_all("an agreement after a part of the check"):
                dist.all_gather(values, torch.tensor([value]), group=group)
        return [float(each) for each in values]

    return everyone


def _make(check: Check, names: Sequence[str], everyone: Callable[[float], list[float]]) -> Iterator[list[CheckResult]]:
    """What each part found. One that raises has failed, and the next is made, unless processes have parted over it."""
    parted = ""
    for name in names:
        (make, needs), found, ended = PARTS[name], list[CheckResult](), 0.0
        why_not = parted or needs(check)
        try:
            found = [CheckResult(name, "not possible here", why_not)] if why_not else make(check)
        except Exception as error:
            ended = 2.0 if isinstance(error, PeerLost) else 1.0
            found = [CheckResult(name, "fail", f"stopped: {type(error).__name__}: {error}")]
        ends = everyone(ended)
        if len(ends) > 1 and set(ends) not in ({0.0}, {1.0}):
            parted = f"since {name} the processes of this launch no longer follow each other"
            found = found if ended else [CheckResult(name, "fail", "stopped in another process")]
        yield found


def _failed(results: Sequence[CheckResult]) -> bool:
    return any(result.result == "fail" for result in results)


def _publish(report: Mapping[str, Any], results: Sequence[CheckResult], path: str | None) -> None:
    """Print the table, and write file and page."""
    for name in ("network", "placement", "machine"):
        print(f"{name:<10} {report[name] if name != 'machine' else ', '.join(report['machine']['devices'])}")
    print(check_table(results), flush=True)
    _write(report, path)
    if path:
        print(f"written to {path} and {Path(path).with_suffix('.html')}, to attach to an issue")


def _write(report: Mapping[str, Any], path: str | None) -> None:
    """Write the file that `json` names, and the page beside it."""
    if path is None:
        return
    text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    page = render("check.html.j2", report=report, text=text)
    with explained(f"cannot write json={path}"):
        regular(Path(path)).write_text(text, "utf-8")
        regular(Path(path).with_suffix(".html")).write_text(page, "utf-8")


def _report(check: Check, results: Sequence[CheckResult], complete: bool) -> dict[str, Any]:
    """The file: the launch, the main process's machine, and every check; `complete` once all parts were made."""
    settings, placement = check.settings, check.mesh.placement
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    checks = [asdict(result) for result in results]
    for each in checks:  # JSON has no infinity: a number that is not finite becomes null
        each["numbers"] = {name: x if math.isfinite(x) else None for name, x in each["numbers"].items()}
    about = ("batch_size", "batch_sizes", "rounds", "repetitions", "seed", "link")
    return {
        "passed": complete and not _failed(results),
        "complete": complete,
        "command": own_command_line("launch/check.py", placement.launch, but="json"),
        "network": settings.network.name,
        "towers": settings.network.towers,
        **{key: getattr(settings, key) for key in about},
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
        "nvml": check.telemetry.words.split("\n"),
        "not_deterministic": check.not_deterministic,
        "checks": checks,
    }


def _gpu_versions() -> dict[str, str]:
    found = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    if torch.cuda.is_available() and dist.is_nccl_available():
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    return {name: str(version) for name, version in found.items() if version is not None}
