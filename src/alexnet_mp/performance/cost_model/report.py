"""A plan as plain values for JSON and as tables for a terminal, with the strategy to choose and the reason."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from alexnet_mp.common.text import aligned, count
from alexnet_mp.performance.cost_model.hardware import Hardware
from alexnet_mp.performance.cost_model.overlap import Transfer
from alexnet_mp.performance.cost_model.prediction import AS_FAST, Plan, Prediction, Strategy
from alexnet_mp.performance.cost_model.settings import PlanSettings

NAMES: dict[Strategy, str] = {"split": "the split", "single": "one device", "data_parallel": "data-parallel"}
_COMPUTE = ("convolution", "matmul", "elementwise", "optimizer")
_MEMORY = ("parameters", "gradients", "momentum", "activations", "buffers", "reserved", "total")


def plan_values(plan: Plan, settings: PlanSettings, hardware: Hardware, alone: Plan | None = None) -> dict[str, Any]:
    """Everything predicted, in seconds, bytes, images a second and days.

    `alone` is the plan of one replica with its share of the batch, if there are several.
    """
    strategy, reason = choose(plan)
    return {
        "network": settings.network.name,
        "batch_size": settings.batch_size,
        "replicas": settings.replicas,
        "nodes": settings.nodes,
        "hardware": hardware.name,
        "precision": settings.precision,
        "crossing_dtype": settings.crossing_dtype,
        "epochs": settings.epochs,
        "images": settings.images,
        "ways": {name: _strategy_values(prediction, settings) for name, prediction in plan.predictions.items()},
        "left_out": dict(plan.left_out),
        "choice": strategy,
        "reason": reason,
        "scaling": _scaling(plan, alone) if settings.replicas > 1 else None,
    }


def _scaling(plan: Plan, alone: Plan | None) -> dict[str, Any] | None:
    """How the split grows with the replicas, and what its step consists of; None if there is no split."""
    prediction, one = plan.predictions.get("split"), alone.predictions.get("split") if alone else None
    if prediction is None or one is None:
        return None
    parts = {"computing": prediction.compute, "crossings": _exposed(prediction.crossings)}
    parts |= {"gradients": _exposed(prediction.all_reduce), "host": prediction.host_exposed}
    return {
        "one_replica_images_per_second": one.images_per_second,
        "efficiency": prediction.images_per_second * one.batch / (prediction.batch * one.images_per_second),
        "fractions_of_a_step": {name: seconds / prediction.step for name, seconds in parts.items()},
        "bound": max(parts, key=lambda name: parts[name]),
    }


def _strategy_values(prediction: Prediction, settings: PlanSettings) -> dict[str, Any]:
    memory = prediction.memory
    return {
        "devices": prediction.devices,
        "step_seconds": prediction.step,
        "images_per_second": prediction.images_per_second,
        "days": prediction.days(settings.epochs, settings.images),
        "seconds": {
            **{part: getattr(prediction, part) for part in _COMPUTE},
            "crossing": sum(transfer.seconds for transfer in prediction.crossings),
            "crossing_exposed": _exposed(prediction.crossings),
            "all_reduce": sum(transfer.seconds for transfer in prediction.all_reduce),
            "all_reduce_exposed": _exposed(prediction.all_reduce),
            "host": prediction.host,
            "host_exposed": prediction.host_exposed,
        },
        "crossings": [asdict(transfer) for transfer in prediction.crossings],
        "all_reduce": [asdict(transfer) for transfer in prediction.all_reduce],
        "bytes_sent_per_step": prediction.bytes_sent,
        "memory_bytes": {**asdict(memory), "total": memory.total, "capacity": prediction.capacity},
        "fits": prediction.fits,
        "largest_batch": prediction.largest_batch,
    }


def plan_text(values: dict[str, Any]) -> str:
    """`plan_values` for a terminal: a column a strategy, a line a part; below it what is sent, and the choice."""
    several = (
        f"{values['replicas']} replicas on {count(values['nodes'], 'node')} of " if values["replicas"] > 1 else "on "
    )
    title = (
        f"{values['network']}, batch {values['batch_size']}, {values['precision']}, {several}{values['hardware']}; "
        f"{values['epochs']:g} epochs of {values['images']:,} images"
    )
    columns = {
        f"{name} ({count(strategy['devices'], 'device')})": _column(strategy, values["epochs"])
        for name, strategy in values["ways"].items()
    }
    labels = next(iter(columns.values()))
    rows = [[label, *(column[label] for column in columns.values())] for label in labels]
    lines = [title, "", *aligned([["", *columns], *rows])]
    crossings = [transfer for strategy in values["ways"].values() for transfer in strategy["crossings"]]
    if crossings:
        table = [["crossing", "", "MB sent", "ms", "exposed ms"], *map(_crossing_row, crossings)]
        lines += ["", *aligned(table, text_columns=2)]
    lines += ["", *(f"{name} is left out: {why}." for name, why in values["left_out"].items()), *_scaling_lines(values)]
    return "\n".join([*lines, values["reason"]])


def _column(strategy: dict[str, Any], epochs: float) -> dict[str, str]:
    """What the table says of one strategy, line by line."""
    seconds, memory = strategy["seconds"], strategy["memory_bytes"]

    def exposed_of_all(name: str) -> str:
        return f"{_ms(seconds[f'{name}_exposed'])} of {_ms(seconds[name])}" if seconds[name] else ""

    return {
        **{f"{part}, ms": _ms(seconds[part]) for part in _COMPUTE},
        "crossing: exposed of all, ms": exposed_of_all("crossing"),
        "all-reduce: exposed of all, ms": exposed_of_all("all_reduce"),
        "host: exposed of all, ms": exposed_of_all("host"),
        "step, ms": _ms(strategy["step_seconds"]),
        "images/s": f"{strategy['images_per_second']:,.0f}",
        f"{epochs:g} epochs": f"{days:.2f} days" if (days := strategy["days"]) >= 2 else f"{24 * days:.2f} h",
        **{f"memory: {part}, MB": f"{memory[part] / 1e6:,.0f}" for part in _MEMORY},
        "fits": f"{'yes' if strategy['fits'] else 'NO'}, {memory['total'] / memory['capacity']:.0%} of "
        f"{memory['capacity'] / 1e9:.1f} GB",
        "largest batch": f"{strategy['largest_batch']:,}",
    }


def _scaling_lines(values: dict[str, Any]) -> list[str]:
    found = values["scaling"]
    if found is None:
        return []
    replicas, share = values["replicas"], values["batch_size"] // values["replicas"]
    parts = ", ".join(f"{name} {fraction:.0%}" for name, fraction in found["fractions_of_a_step"].items())
    return [
        f"The split's {replicas} replicas of {share} images: {found['efficiency']:.0%} of {replicas} times one "
        f"replica's {found['one_replica_images_per_second']:,.0f} images/s; of a step: {parts}. "
        f"Bound by {found['bound']}."
    ]


def _crossing_row(transfer: dict[str, Any]) -> list[str]:
    milliseconds = (f"{1e3 * transfer[key]:.3f}" for key in ("seconds", "exposed"))
    return [f"into {transfer['name']}", transfer["direction"], f"{transfer['bytes_sent'] / 1e6:.2f}", *milliseconds]


def _exposed(transfers: Sequence[Transfer]) -> float:
    return sum(transfer.exposed for transfer in transfers)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.2f}" if seconds < 0.1 else f"{1e3 * seconds:,.0f}"


def choose(plan: Plan) -> tuple[Strategy | None, str]:
    """The fastest strategy that fits, or None if none does; those as fast within the model's resolution are named."""
    fitting = sorted((p for p in plan.predictions.values() if p.fits), key=lambda prediction: prediction.step)
    if not fitting:
        needs = ", ".join(f"{NAMES[p.strategy]} needs {_gb(p.memory.total)}" for p in plan.predictions.values())
        capacity = max(prediction.capacity for prediction in plan.predictions.values())
        return None, f"Nothing fits {_gb(capacity)} a device: {needs}; use a smaller batch_size."
    best, *others = fitting
    reasons = [_than(best, other) for other in others]
    reasons += [
        f"{NAMES[p.strategy]} needs {_gb(p.memory.total)} of {_gb(p.capacity)}"
        for p in plan.predictions.values()
        if not p.fits
    ]
    why = "; ".join(reasons) if reasons else "the only way that these devices allow"
    return best.strategy, f"Choose {NAMES[best.strategy]}, {best.images_per_second:,.0f} images/s: {why}."


def _than(best: Prediction, other: Prediction) -> str:
    """How much faster the best is than another; what each sends in a step, and what of it is waited for."""
    ratio = other.step / best.step
    speed = f"{ratio:.2f} times as fast as {NAMES[other.strategy]}"
    if ratio - 1 < AS_FAST:
        speed = f"as fast as {NAMES[other.strategy]} within the model's {AS_FAST:.0%}"
    if not (best.bytes_sent or other.bytes_sent) or "single" in (best.strategy, other.strategy):
        return speed
    return (
        f"{speed} ({best.bytes_sent / 1e6:,.1f} MB sent a step and {1e3 * best.exposed:.2f} ms of it exposed, against "
        f"{other.bytes_sent / 1e6:,.1f} MB and {1e3 * other.exposed:.2f} ms; update {1e3 * best.optimizer:.2f} ms "
        f"against {1e3 * other.optimizer:.2f} ms)"
    )


def _gb(count: float) -> str:
    return f"{count / 1e9:.2f} GB"
