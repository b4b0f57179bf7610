"""The times that `launch/check.py` gives: of exchanges, and of what a step's exchanges show."""

from dataclasses import replace

import torch

from alexnet_mp.common.cli import compose
from alexnet_mp.parallel.link_test import Passage
from alexnet_mp.parallel.links import Link, LocalLink
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.parallel.placement import Placement
from alexnet_mp.performance.benchmark.timed_link import Exchange
from alexnet_mp.performance.machine_check import step
from alexnet_mp.performance.machine_check.link import exchange_seconds
from alexnet_mp.performance.machine_check.settings import Check, CheckSettings, Speed, parse_check_settings

DEVICES = {tower: torch.device(f"cpu:{tower}") for tower in range(2)}
TWO_DEVICES = Placement("two_devices", 2, DEVICES)
CROSSINGS = [
    *("conv3 forward", "fc6 forward", "fc7 forward", "fc8 forward"),
    *("fc7 backward", "fc6 backward", "conv3 backward"),
]
STEP_BYTES = 4 * 8 * (2 * (128 * 9 + 128 + 256) + 10)  # of the network `small`, 8 images: gradients of fc8 do not cross
QUICK = (
    "device=cpu",
    "batch_size=8",
    "rounds=1",
    "repetitions=2",
    "parts=[link,link under load,parity,crossings,step]",
)


def settings(*overrides: str) -> CheckSettings:
    return parse_check_settings(compose("check", [*QUICK, *overrides]))


def check_with(link: Link | None, placement: Placement = TWO_DEVICES, *overrides: str) -> Check:
    return Check(settings(*overrides), Mesh(placement, None), link)


def test_a_silent_link_hands_back_what_it_was_given_and_carries_nothing():
    link = step.TimedLink(LocalLink([*DEVICES.values()]))
    outgoing = [[torch.tensor([1.0])], [torch.tensor([2.0])]]
    assert [parcels[0].item() for parcels in link.post(outgoing, "conv3", "forward")()] == [2.0, 1.0]
    before = dict(link.traffic.bytes_sent)
    link.silent = True
    assert [parcels[0].item() for parcels in link.post(outgoing, "conv3", "forward")()] == [1.0, 2.0]
    assert dict(link.traffic.bytes_sent) == before


def test_on_gpus_what_shows_is_the_step_with_the_link_less_the_step_without(monkeypatch):
    # As on GPUs, with a clock by which a step takes 5 s with the link and 3 s without; the exchanges alone take 8 s.
    posted: list[bool] = []
    silent = step.TimedLink.post

    def noted(self, *arguments):
        posted.append(self.silent)
        return silent(self, *arguments)

    train_steps = step.train_steps

    def timed(*arguments):
        _, losses = train_steps(*arguments)
        return [0.0, 0.0, 3.0 if posted[-1] else 5.0], losses

    monkeypatch.setattr(Placement, "on_gpus", True)
    monkeypatch.setattr(step.TimedLink, "post", noted)
    monkeypatch.setattr(step, "train_steps", timed)
    link = LocalLink([*DEVICES.values()])
    check = check_with(link, TWO_DEVICES, "rounds=2")
    check.speeds += [
        Speed(Passage("conv3", "forward", (1,)), 4, 8.0),
        Speed(Passage("one float", "forward", (1,)), 4, 1.0),
    ]
    took, hidden = step.step_results(check)
    assert took.result == "pass" and took.numbers["seconds"] == 5.0
    assert took.numbers["crossing_bytes"] == STEP_BYTES  # those of the silent steps are none
    assert hidden.numbers == {"hidden": 0.75, "exposed_seconds": 2.0, "alone_seconds": 8.0}


def test_on_cpus_what_shows_is_the_wait_after_all_have_posted():
    one, other = Exchange("conv3", "forward", 0, 1, 2, 5), Exchange("conv3", "forward", 10, 11, 12, 13)
    assert step.exposed_seconds(Mesh(TWO_DEVICES, None), [one, other], steps=2) == (3 + 1) / 2


class FourProcesses(Mesh):
    """Two replicas, of which this process is one; `gather` answers with the times of all four."""

    def gather(self, values):
        return [[5.0, 2.0, 9.0], [4.0, 6.0, 1.0], [3.0, 3.0, 3.0], [8.0, 8.0, 8.0]]


def test_an_exchange_takes_as_long_as_for_the_tower_that_came_last_in_the_slower_replica():
    placement = replace(TWO_DEVICES, replicas=2)
    seconds = exchange_seconds(
        FourProcesses(placement, None), LocalLink([*DEVICES.values()]), Passage("fc6", "forward", (2, 3)), 3
    )
    assert seconds == 3.0  # the first replica's rounds are 4, 2, 1, the second's 3, 3, 3
