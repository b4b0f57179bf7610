"""Compares the placements of this launch: logits and every gradient, without TF32, deterministic."""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, inf, nn
from torch.linalg import vector_norm
from torch.nn import functional as F

from alexnet_mp.checkpoint.convert.layout import to_single_device
from alexnet_mp.common.rng import keyed_generator
from alexnet_mp.model.single_device import single_device_model
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel.links import LocalLink
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.parallel.placement import Placement
from alexnet_mp.performance.machine_check.settings import Check, CheckResult, CheckSettings

IMAGES = 4  # batch normalization of fewer has gradients that are rounding alone
# Largest difference of a tensor, relative to its largest value. In float32 another order of summation turns a ReLU or
# a maximum over now and then, where two values are nearly equal; a wrong transfer shows as a difference of about 1.
# In bfloat16 (autocast) that happens in every layer: there all logits and all gradients together are compared, by the
# length of the difference; one device beside float64 differs by 0.07 to 0.11 on a CPU, for four networks.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-3, torch.bfloat16: 0.3}
Values = dict[str, Tensor]


def parity_results(check: Check) -> list[CheckResult]:
    """Compare what this launch has; every process calls it, and gets the same."""
    with _exact() as without:
        model = _simulated(check, torch.float64)
        _draw_weights(model, check.settings.seed)
        results = [_against_the_grouped_network(check, model.eval()), *_of_the_placements(check, model.train())]
    check.not_deterministic += without
    return results


def _against_the_grouped_network(check: Check, model: TowerModel) -> CheckResult:
    """All towers on one device, `model`, against one network of stock PyTorch's layers that knows of no towers."""
    network, device = check.settings.network, check.devices[0]
    images, labels = _batch(check.settings, torch.float64)
    single = single_device_model(network).to(device, torch.float64).eval()
    own = single.state_dict()
    weights = {name: tensor.view(own[name].shape) for name, tensor in to_single_device(model.state_dict()).items()}
    missing, unexpected = single.load_state_dict(weights, strict=False)
    # torch counts batches where it normalizes them; nothing here reads the count.
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), (missing, unexpected)
    theirs = single(images.to(device))
    F.cross_entropy(theirs, labels.to(device)).backward()
    in_float32 = _simulated(check, torch.float32).eval()
    in_float32.load_state_dict(model.state_dict())
    compared = {}
    for dtype, towers in ((torch.float64, model), (torch.bfloat16, in_float32)):
        with _autocast(device, dtype):
            ours = towers(images.to(device, next(towers.parameters()).dtype))
        F.cross_entropy(ours.to(torch.float64), labels.to(device)).backward()
        found = {"logits": ours.detach(), **to_single_device(_gradients(towers))}
        expected = {"logits": theirs.detach(), **_gradients(single)}
        compared[dtype] = found, {name: value.view(found[name].shape) for name, value in expected.items()}
    return _result("parity: one device", "a network without towers", check.mesh, compared)


def _of_the_placements(check: Check, simulated: TowerModel) -> list[CheckResult]:
    """This launch's placement, against all towers on its first device; in training mode, dropout included.

    `simulated` has the weights that all models here get.
    """
    settings, placement, link = check.settings, check.mesh.placement, check.link
    towers = settings.network.towers
    reasons = {
        "two_devices": f"needs one process that sees {towers} GPUs; torch sees {torch.cuda.device_count()} here",
        "distributed": f"needs a process for each tower: torchrun --nproc-per-node={towers}",
    }
    if towers == 1:
        reasons = dict.fromkeys(reasons, f"network {settings.network.name} has one tower")
    results, weights = [], simulated.state_dict()
    for kind, reason in reasons.items():
        if kind != placement.kind or link is None:
            results.append(CheckResult(f"parity: {kind}", "not possible here", reason))
            continue
        compared = {}
        for dtype in TOLERANCES:
            own = torch.float32 if dtype == torch.bfloat16 else dtype
            one_device = _simulated(check, own)
            model = TowerModel(settings.network, placement, link, settings.seed, own)
            for each in (one_device, model):
                each.load_state_dict({name: weights[name] for name in each.state_dict()})
            expected, found = (_of_a_training_step(settings, each, dtype) for each in (one_device, model))
            compared[dtype] = found, {name: expected[name] for name in found}
        results.append(_result(f"parity: {kind}", "all towers on one device", check.mesh, compared))
    return results


def _simulated(check: Check, dtype: torch.dtype) -> TowerModel:
    """All towers on this process's first device."""
    network, placement = check.settings.network, check.mesh.placement
    devices = dict.fromkeys(range(network.towers), check.devices[0])
    # The same replica, so that dropout draws the same masks.
    alone = Placement("simulated", network.towers, devices, placement.replica, placement.replicas, placement.launch)
    local = LocalLink(list(devices.values())) if network.towers > 1 else None
    return TowerModel(network, alone, local, check.settings.seed, dtype)


@torch.no_grad()
def _draw_weights(model: TowerModel, seed: int) -> None:
    """Values of their own for every tensor of every tower, biases too, large enough for every layer to matter."""
    for name, parameter in model.named_parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
        drawn = torch.randn(parameter.shape, generator=keyed_generator(seed, "check weights", name))
        parameter.copy_(drawn / fan_in**0.5)


def _batch(settings: CheckSettings, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    network, generator = settings.network, keyed_generator(settings.seed, "check images")
    images = 50 * torch.randn(IMAGES, *network.image, generator=generator)  # as pixels around their mean
    return images.to(dtype), torch.randint(network.classes, (IMAGES,), generator=generator)


def _of_a_training_step(settings: CheckSettings, model: TowerModel, precision: torch.dtype) -> Values:
    """Each local tower's logits and gradients, by the way that training takes: a loss on every tower."""
    devices = model.placement.devices
    images, labels = _batch(settings, next(model.parameters()).dtype)
    with _autocast(next(iter(devices.values())), precision):
        logits = model.tower_logits([images.to(device) for device in devices.values()], step=0)
    losses = [F.cross_entropy(each, labels.to(each.device)) for each in logits]
    torch.autograd.backward(losses)
    found = {f"logits of tower {tower}": each.detach() for tower, each in zip(devices, logits, strict=True)}
    return found | _gradients(model)


def _autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16)


def _gradients(model: nn.Module) -> Values:
    found = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        found[name] = parameter.grad
    return found


def _result(name: str, beside: str, mesh: Mesh, compared: Mapping[torch.dtype, tuple[Values, Values]]) -> CheckResult:
    """What the worst process found, in each precision."""
    words, failed = [], False
    numbers: dict[str, float] = {}
    for dtype, (found, expected) in compared.items():
        if dtype == torch.bfloat16:
            found, expected = _together(found), _together(expected)
        worst, where = _worst(found, expected, 2 if dtype == torch.bfloat16 else inf)
        everyone = [error for (error,) in mesh.gather([worst])]
        error, allowed, precision = max(everyone), TOLERANCES[dtype], str(dtype).removeprefix("torch.")
        failed = failed or error > allowed
        # Each process knows the name of its own tensor alone.
        which = where if everyone[mesh.placement.launch.rank] == error else f"rank {everyone.index(error)}"
        words.append(f"{error:.1e} in {precision} ({which}; {allowed:.0e} allowed)" if error else f"0 in {precision}")
        numbers |= {f"{precision}_error": error, f"{precision}_allowed": allowed}
    tensors = len(next(iter(compared.values()))[0])
    text = f"logits and gradients, {tensors} tensors, beside {beside}; they differ by {', '.join(words)}"
    if not failed:
        return CheckResult(name, "pass", text, numbers)
    return CheckResult(name, "fail", text, numbers, "if the link passes, report it with the file of this check")


def _together(values: Values) -> Values:
    """All logits as one tensor, and all gradients."""
    groups: dict[str, list[Tensor]] = {"logits": [], "gradients": []}
    for name, value in values.items():
        groups["logits" if "logits" in name else "gradients"].append(value.cpu().double().flatten())
    return {name: torch.cat(group) for name, group in groups.items()}


def _worst(found: Values, expected: Values, norm: float) -> tuple[float, str]:
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    errors = dict.fromkeys(found, 0.0)
    for name, value in expected.items():
        difference, scale = (vector_norm(x.cpu(), norm).item() for x in (found[name].cpu() - value.cpu(), value))
        errors[name] = difference / scale if scale else (inf if difference else 0.0)
        if not math.isfinite(errors[name]):
            errors[name] = inf
    where = max(errors, key=lambda name: errors[name])
    return errors[where], where


@contextmanager
def _exact() -> Iterator[list[str]]:
    """No TF32 and deterministic algorithms; gives, once left, the operations that have none.

    Those only warn, so that the rest can be compared all the same.
    """
    precision, deterministic = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    only_warn = torch.is_deterministic_algorithms_warn_only_enabled()
    without: list[str] = []
    torch.set_float32_matmul_precision("highest")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with (
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
            warnings.catch_warnings(record=True) as said,
        ):
            warnings.simplefilter("always")
            yield without
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministic, warn_only=only_warn)
    messages = [str(warning.message) for warning in said]
    without += sorted({message.split(" does not have")[0] for message in messages if "deterministic" in message})
