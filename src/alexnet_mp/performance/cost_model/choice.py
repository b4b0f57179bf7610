"""Chooses a strategy to train, and gives the reason in one sentence with its numbers."""

from alexnet_mp.performance.cost_model.prediction import AS_FAST, Plan, Prediction, Strategy

NAMES: dict[Strategy, str] = {"split": "the split", "single": "one device", "data_parallel": "data-parallel"}


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
    ratio = other.step / best.step
    speed = f"{ratio:.2f} times as fast as {NAMES[other.strategy]}"
    if ratio - 1 < AS_FAST:
        speed = f"as fast as {NAMES[other.strategy]} within the model's {AS_FAST:.0%}"
    return speed + _because(best, other)


def _because(best: Prediction, other: Prediction) -> str:
    """What each sends in a step, and what of it is waited for."""
    if not (sent(best) or sent(other)) or "single" in (best.strategy, other.strategy):
        return ""
    return (
        f" ({sent(best) / 1e6:,.1f} MB sent a step and {1e3 * best.exposed:.2f} ms of it exposed, against "
        f"{sent(other) / 1e6:,.1f} MB and {1e3 * other.exposed:.2f} ms; update {1e3 * best.optimizer:.2f} ms against "
        f"{1e3 * other.optimizer:.2f} ms)"
    )


def sent(prediction: Prediction) -> float:
    """Bytes that a device sends in a step."""
    return sum(transfer.bytes_sent for transfer in (*prediction.crossings, *prediction.all_reduce))


def _gb(count: float) -> str:
    return f"{count / 1e9:.2f} GB"
