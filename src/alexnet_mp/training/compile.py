"""Decides whether a run compiles its LRN: only if that pays, and in all processes alike."""

import importlib.util
import os
import shutil
import time
from math import prod
from typing import Literal

import torch

from alexnet_mp.model.layers.norm import LocalResponseNorm
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network import rows
from alexnet_mp.network.costs import network_cost
from alexnet_mp.parallel.mesh import Mesh

# Forward and backward, for each value of the maps and a CPU thread: 105 ms without and 57 ms with a compiler for the
# 15.3 million values of a tower at batch 64 (docs/performance.md). On GPUs an estimate: some twenty passes over memory
# less, at 2 TB/s.
SECONDS_SAVED_PER_VALUE = {"cpu": 3.1e-9, "cuda": 8e-11}
SECONDS_TO_COMPILE = 40.0  # two shapes, from an empty cache, two processes on two cores


def choose_kernels(
    requested: Literal["auto", "on", "off"], model: TowerModel, steps: int, batch_size: int, mesh: Mesh
) -> str:
    """Compile the model's LRN or do not; every process calls it. Returns in words what was chosen, and why.

    `auto` compiles where a compiler is present and `steps` of the global batch save twice what compiling takes. Where
    one process cannot, none does, because the two ways differ in the last bits.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, LocalResponseNorm)]
    if requested == "off" or not layers:
        return "nothing" if layers else "nothing to compile"
    device = next(iter(model.placement.devices.values()))
    saved = _seconds_saved(model, steps, batch_size // model.placement.replicas, device)
    if requested == "auto" and saved < 2 * SECONDS_TO_COMPILE:
        return (
            f"nothing: {steps:,} steps would save about {saved:.0f} s, and compiling takes {SECONDS_TO_COMPILE:.0f} s"
        )
    missing = missing_compiler(device)
    if mesh.any(missing is not None):
        return f"nothing: {missing or 'another process has no compiler'}"
    started = time.perf_counter()
    failure = _try_out(model, layers, batch_size // model.placement.replicas)
    if mesh.any(failure is not None):
        for layer in layers:
            layer.compiled = False
        return f"nothing: {failure or 'it failed in another process'}"
    return f"the LRN, in {time.perf_counter() - started:.0f} s, to save about {saved:.0f} s"


def _seconds_saved(model: TowerModel, steps: int, images: int, device: torch.device) -> float:
    costs = network_cost(model.network)
    values = sum(
        prod(costs.row(name).input_shape)
        for name, row in model.network.layer_rows.items()
        if isinstance(row, rows.LocalResponseNorm)
    )
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    towers_on_a_device = len(model.placement.devices) / len(set(model.placement.devices.values()))
    seconds = SECONDS_SAVED_PER_VALUE.get(device.type, 0.0) * values * towers_on_a_device / threads
    return steps * images * seconds


def missing_compiler(device: torch.device) -> str | None:
    """Why kernels for `device` cannot be compiled here; None if they can."""
    if device.type == "cuda":
        return None if importlib.util.find_spec("triton") else "there is no triton, which compiles for GPUs"
    candidates = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    if any(shutil.which(candidate) for candidate in candidates):
        return None
    return f"there is no C++ compiler ({' or '.join(candidates)})"


def _try_out(model: TowerModel, layers: list[LocalResponseNorm], images: int) -> str | None:
    """Run every layer once on maps of the size that it will have; what went wrong, if anything did."""
    costs = network_cost(model.network)
    shapes = [
        costs.row(name).input_shape
        for name, row in model.network.layer_rows.items()
        if isinstance(row, rows.LocalResponseNorm)
    ]
    dtype = next(model.parameters()).dtype
    try:
        for index, layer in enumerate(layers):
            layer.compiled = True
            device = list(model.placement.devices.values())[index // len(shapes)]
            maps = torch.zeros(images, *shapes[index % len(shapes)], dtype=dtype, device=device)
            maps = maps.contiguous(memory_format=torch.channels_last).requires_grad_()
            layer(maps).sum().backward()
    except Exception as error:  # whatever a compiler may raise: training goes on without it
        return f"compiling failed ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
    return None
