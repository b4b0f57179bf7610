"""Tries a training run: builds everything, trains one step, and predicts the whole; writes nothing (`dry_run=true`)."""

import time
from collections.abc import Mapping
from typing import Any

import torch

from alexnet_mp.common.text import count
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel.crossing import to_towers
from alexnet_mp.parallel.link_test import checked_link
from alexnet_mp.parallel.mesh import Mesh, open_mesh
from alexnet_mp.parallel.telemetry import open_telemetry
from alexnet_mp.performance.cost_model.hardware import load_hardware
from alexnet_mp.performance.cost_model.prediction import Strategy, predict
from alexnet_mp.performance.cost_model.replicas import Layout
from alexnet_mp.training.finetune import load_initial_weights
from alexnet_mp.training.loss import LossOnEveryTower, averaging_gradients, data_parallel
from alexnet_mp.training.resume import begin
from alexnet_mp.training.summary import announcement
from alexnet_mp.training.train import PreparedRun, check_agreement, prepare_run

_ON_CPUS, _ON_GPUS = "two_epyc_cores", "two_h100_nvlink"  # descriptions, if `dry_run` names none
_PRECISIONS = {"bf16": "bfloat16"}  # what the cost model calls differently


def try_run(configuration: Mapping[str, Any], classes_of_data: bool = False) -> str | None:
    """Train one step of the run that `configuration` describes, and say in lines what the whole would be.

    Every process of the run calls it; the text is the main process's, None in the others. `dry_run` may name the
    hardware to predict for: a preset of conf/hardware_descriptions, or the path of one. `classes_of_data`: as in
    `train`.

    Raises what `train` raises before its second step, and ConfigurationError for hardware that cannot be read.
    """
    run = prepare_run(configuration, classes_of_data)
    settings, placement = run.settings, run.placement
    named = settings.dry_run if isinstance(settings.dry_run, str) else _ON_GPUS if placement.on_gpus else _ON_CPUS
    predicted = _prediction(run, named)
    joined = open_mesh(placement, settings.timeout_seconds, settings.link)
    with joined as mesh, open_telemetry(placement) as telemetry:
        check_agreement(run.text, run.data, mesh)
        loss, seconds = _one_step(run, mesh)
    if not placement.is_main:
        return None
    steps, epochs = run.loader.steps_per_epoch, settings.recipe.epochs
    lines = {
        "steps": f"{steps:,} an epoch, {steps * epochs:,} in {count(epochs, 'epoch')}",
        "first step": f"loss {loss:.4f}, {seconds:.2f} s, slower than those that follow it",
        "predicted": predicted,
        "run folder": f"{settings.run_dir or f'runs/{settings.experiment_name}/TIME'}; this was a dry run, and nothing "
        "is written",
    }
    said = announcement(settings, placement, run.data, telemetry.words)
    return "\n".join([said, *(f"{name:<10} {text}" for name, text in lines.items())])


def _one_step(run: PreparedRun, mesh: Mesh) -> tuple[float, float]:
    """The loss over all replicas, and seconds; the weights, and their velocities, are gone with the model."""
    settings, placement = run.settings, mesh.placement
    devices = list(placement.devices.values())
    link = checked_link(mesh, settings.network, settings.recipe.batch_size // placement.replicas)
    model = TowerModel(settings.network, placement, link, settings.seed, settings.dtype, settings.wire_dtype)
    load_initial_weights(model, settings.initial_weights, settings.recipe.input, mesh)
    losses = data_parallel(LossOnEveryTower(model, settings.autocast), mesh)
    optimizer, batch = begin(model, settings).optimizer, next(run.loader.training(0))
    began = time.perf_counter()
    with averaging_gradients(mesh):
        each = losses(run.preprocess.on_each(batch, devices), to_towers(batch.labels, devices), 0)
        torch.autograd.backward(each)
    optimizer.step()
    loss = each[0].item() / placement.replicas if placement.first_tower == 0 else 0.0
    (loss,) = mesh.sum_over_processes([loss])
    return loss, time.perf_counter() - began


def _prediction(run: PreparedRun, hardware_name: str) -> str:
    """Time and memory by the cost model, in words; why there is none, if it covers no such run."""
    settings, placement, hardware = run.settings, run.placement, load_hardware(hardware_name)
    network, batch, nodes = settings.network, settings.recipe.batch_size, placement.launch.nodes
    split = network.towers > 1 and placement.kind != "simulated"
    strategy: Strategy = "split" if split else "data_parallel" if placement.replicas > 1 else "single"
    precision, crossing_dtype = _PRECISIONS.get(settings.precision, settings.precision), settings.crossing_dtype
    try:
        layout = Layout(placement.replicas, nodes)
        plan = predict(network, hardware, batch, precision, crossing_dtype or "float32", layout)
    except ConfigurationError as error:
        return f"nothing for {hardware.name}: {error}"
    found = plan.predictions.get(strategy)
    if found is None:
        return f"nothing for {hardware.name}: {plan.left_out[strategy]}"
    days = found.days(settings.recipe.epochs, run.loader.steps_per_epoch * batch)
    took = f"{days:.1f} days" if days >= 2 else f"{24 * days:.1f} h" if days >= 0.1 else f"{1440 * days:.1f} minutes"
    return (
        f"{1e3 * found.step:,.3g} ms a step, {took} in all, and "
        f"{found.memory.total / 1e9:.2f} of {found.capacity / 1e9:.1f} GB of a device's memory, for {hardware.name} "
        f"(dry_run=DESCRIPTION names another){'' if found.fits else '; IT DOES NOT FIT'}"
    )
