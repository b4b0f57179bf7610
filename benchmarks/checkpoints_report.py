"""What the rounds of `checkpoints.py` say: seconds, what a checkpoint costs in throughput, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from statistics import median
from typing import Any

from alexnet_mp.common.text import aligned
from alexnet_mp.performance.benchmark.output import machine_text, over_rounds

INTERVAL = 60.0  # seconds from one checkpoint to the next, for which the loss of throughput is reported
CONFIDENCE = 0.95
SECONDS = {  # what a report has of each round, and in which words
    "with_one": "a block with a checkpoint",
    "without": "a block without",
    "held": "the save holds the step",
    "finite": "  agreeing that all is finite",
    "metrics": "  metrics to the disk",
    "copy": "  the copy",
    "written": "until it is whole, beside training",
    "synchronous": "a save that training waits for",
}


@dataclass(frozen=True)
class Round:
    """Seconds of one round, of the slowest process. `with_one` and `without` are of a block of steps.

    `finite`, `metrics` and `copy` are the parts of `held`, for which the save in the block held its training;
    `written`: from the thread's start until the checkpoint was whole on the disk.
    """

    with_one: float
    without: float
    synchronous: float
    finite: float
    metrics: float
    copy: float
    written: float

    @property
    def cost(self) -> float:
        return self.with_one - self.without

    @property
    def held(self) -> float:
        return self.finite + self.metrics + self.copy

    @property
    def late(self) -> bool:
        """True if the checkpoint was whole only after the block's end, so that the block lacks some of its cost."""
        return self.written > self.with_one - self.held


def summarize_checkpoints(rounds: Sequence[Round], first_held: float, checkpoint_bytes: int) -> dict[str, Any]:
    """Seconds as median, spread and by round; the cost is the median over the rounds of the difference within each.

    `first_held`: seconds that the first checkpoint held, with the memory for its copies.
    `throughput_lost`: of training, at one checkpoint in INTERVAL seconds, that is the cost in a minute of training.
    `share_held`: of the cost, what holds the steps; the rest is disk and hashing that take time from training.
    """
    seconds = {name: over_rounds([float(getattr(each, name)) for each in rounds]) for name in SECONDS}
    costs = [each.cost for each in rounds]
    cost, interval = median(costs), interval_of_median(costs)
    return {
        "checkpoint_bytes": checkpoint_bytes,
        "seconds": seconds,
        "first_held_seconds": first_held,
        "late": sum(each.late for each in rounds),
        "cost_seconds": cost,
        "cost_seconds_of_rounds": costs,
        "cost_interval": interval,
        "share_held": seconds["held"]["median"] / cost if cost > 0 else None,
        "interval_seconds": INTERVAL,
        "throughput_lost": cost / INTERVAL,
        "throughput_lost_interval": interval and [each / INTERVAL for each in interval],
        "throughput_lost_synchronous": seconds["synchronous"]["median"] / INTERVAL,
    }


def interval_of_median(values: Sequence[float]) -> list[float] | None:
    """The narrowest pair of values, equally far from the ends, that has the median between with CONFIDENCE.

    By the sign test: of n independent values, fewer than k lie below their distribution's median with the probability
    that a fair coin thrown n times shows fewer than k heads. None where there are too few values for any pair.
    """
    ordered, found = sorted(values), None
    for k in range(1, len(ordered) // 2 + 1):
        outside = 2 * sum(comb(len(ordered), heads) for heads in range(k)) / 2 ** len(ordered)
        if outside <= 1 - CONFIDENCE:
            found = [ordered[k - 1], ordered[-k]]
    return found


def checkpoints_text(report: Mapping[str, Any]) -> str:
    """The report for a terminal."""
    machine, seconds = report["machine"], report["seconds"]
    sure, lost = "too few rounds for an interval", ""
    if report["cost_interval"]:
        sure = "{:.2f} to {:.2f} s with {:.0%}".format(*report["cost_interval"], CONFIDENCE)
        lost = " ({:.1%} to {:.1%})".format(*report["throughput_lost_interval"])
    held = "" if report["share_held"] is None else f"; holding the step is {report['share_held']:.0%} of it"
    table = [(SECONDS[name], f"{each['median']:.3f}", f"{each['spread']:.0%}") for name, each in seconds.items()]
    text = [
        f"{machine_text(machine)}; {machine['disk'] or 'an unknown disk'}",
        f"{report['network']}, batch {report['batch_size']}, {report['placement']}, processes x threads "
        f"{report['processes']} x {machine['threads']}; {report['checkpoint_bytes'] / 1e6:.1f} MB a checkpoint",
        f"rounds: {report['rounds']}, steps of a block: {report['steps']}; seed {report['seed']}; "
        "medians, and (max - min) / median",
        "",
        *aligned([("", "seconds", "spread"), *table]),
        "",
        f"A checkpoint costs {report['cost_seconds']:.2f} s of training ({sure}){held}.",
        f"At one a minute: {report['throughput_lost']:.1%} of training throughput{lost}; "
        f"if training waited for it, {report['throughput_lost_synchronous']:.1%}.",
        f"The first of a run holds the step {report['first_held_seconds']:.2f} s, with the memory for the copies.",
    ]
    if report["late"]:
        text.append(
            f"In {report['late']} of {report['rounds']} rounds the checkpoint was whole only after the block, which "
            f"then does not show all of its cost; give steps={2 * report['steps']}."
        )
    return "\n".join(text)
