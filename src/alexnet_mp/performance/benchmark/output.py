"""What the reports of all benchmarks share: the machine, medians with their spread, and where they are written."""

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from alexnet_mp.common.cli import show
from alexnet_mp.common.host import device_name, usable_cores, versions
from alexnet_mp.common.text import aligned


def machine_values(load: float, devices: Sequence[str] = (), threads: int | None = None) -> dict[str, Any]:
    """What figures were measured on, by default the CPU with this process's threads; `load` is what it had before."""
    return {
        "device": ", ".join(sorted(devices)) or device_name(torch.device("cpu")),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": usable_cores(),
        "threads": threads or torch.get_num_threads(),
        "load_average_before": load,
        "versions": versions(),
    }


def machine_text(machine: Mapping[str, Any], whose: str = "") -> str:
    """`machine_values` in one line; `whose` threads they are, if not this process's: ` of ...`."""
    return (
        f"{machine['device']}; threads{whose}: {machine['threads']}, cores: {machine['cores']}, load average before "
        f"the start {machine['load_average_before']:.1f}; {machine['platform']}; "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    )


def relative_spread(values: Sequence[float]) -> float:
    """(max - min) / median."""
    return (max(values) - min(values)) / median(values)


def over_rounds(values: Sequence[float]) -> dict[str, Any]:
    """The median over the rounds, their `relative_spread`, and every round."""
    return {"median": median(values), "spread": relative_spread(values), "rounds": list(values)}


def table_of(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Lines of a table whose rows name their columns; rows of one table have the same."""
    return aligned([list(rows[0]), *(list(row.values()) for row in rows)])


def publish(report: Mapping[str, Any], text: str, path: str | None) -> None:
    """Print `text`, and write `report` as JSON to `path` if there is one."""
    show(text)
    if path:
        Path(path).write_text(json.dumps(report, indent=2) + "\n", "utf-8")
