"""Waits at crossings: what is exposed and what is skew, from invented times; and what a timed link notes."""

import pytest
import torch

from alexnet_mp import load_network
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel.links import LocalLink
from alexnet_mp.parallel.placement import Placement
from alexnet_mp.performance.benchmark.timed_link import Exchange, TimedLink, Waiting, waiting


def exchange(begun: float, posted: float, wait_began: float, wait_ended: float, crossing: str = "conv3") -> Exchange:
    return Exchange(crossing, "forward", begun, posted, wait_began, wait_ended)


def only(waits: dict) -> Waiting:
    (wait,) = waits.values()
    return wait


def test_a_wait_after_both_have_posted_is_exposed():
    first = exchange(0.0, 1.0, 5.0, 7.0)
    second = exchange(0.0, 2.0, 5.5, 6.0)
    of_first, of_second = map(only, waiting([[first], [second]]))
    assert of_first == Waiting(exposed=2.0, skew=0.0, posting=1.0)
    assert of_second == Waiting(exposed=0.5, skew=0.0, posting=2.0)


def test_a_wait_for_a_tower_that_was_late_is_skew_until_it_posts():
    early = exchange(0.0, 1.0, 2.0, 9.0)  # waits from 2 to 9
    late = exchange(7.5, 8.0, 8.0, 8.25)  # and the other posts at 8
    of_early, of_late = map(only, waiting([[early], [late]]))
    assert of_early == Waiting(exposed=1.0, skew=6.0, posting=1.0)
    assert of_late == Waiting(exposed=0.25, skew=0.0, posting=0.5)


def test_a_wait_that_ends_before_a_peer_is_noted_as_posted_is_all_skew():
    # The peer's parcel can be here before its call to post returns.
    first, second = exchange(0.0, 0.0, 1.0, 3.0), exchange(2.0, 4.0, 4.0, 4.0)
    assert only(waiting([[first], [second]])[0]) == Waiting(exposed=0.0, skew=2.0, posting=0.0)


def test_with_three_towers_the_last_to_post_ends_the_skew():
    towers = [exchange(0.0, 1.0, 1.0, 6.0), exchange(0.0, 3.0, 3.0, 6.0), exchange(0.0, 5.0, 5.0, 6.0)]
    assert [only(waits).skew for waits in waiting([[tower] for tower in towers])] == [4.0, 2.0, 0.0]
    assert [only(waits).exposed for waits in waiting([[tower] for tower in towers])] == [1.0, 1.0, 1.0]


def test_exchanges_of_several_steps_are_paired_in_order_and_added_by_crossing():
    first = [exchange(0, 0, 1, 2), exchange(2, 2, 3, 3, "fc6"), exchange(10, 10, 11, 15)]
    second = [exchange(0, 0, 1, 1), exchange(2, 2, 3, 3, "fc6"), exchange(10, 12, 12, 12)]
    waits = waiting([first, second])[0]
    assert waits["conv3", "forward"] == Waiting(exposed=1.0 + 3.0, skew=1.0, posting=0.0)
    assert waits["fc6", "forward"] == Waiting(0.0, 0.0, 0.0)


def test_a_single_process_has_no_skew():
    assert only(waiting([[exchange(0.0, 1.0, 2.0, 4.0)]])[0]) == Waiting(exposed=2.0, skew=0.0, posting=1.0)


def test_towers_with_different_exchanges_are_refused():
    with pytest.raises(AssertionError, match="different exchanges"):
        waiting([[exchange(0, 0, 0, 0)], [exchange(0, 0, 0, 0, "fc6")]])


def test_a_timed_link_carries_counts_and_notes_in_order():
    plain = LocalLink([torch.device("cpu")] * 2)
    link = TimedLink(plain)
    assert (link.towers, link.local_towers, link.traffic) == (2, (0, 1), plain.traffic)
    sent = [[torch.full((2, 3), 1.0)], [torch.full((2, 3), 2.0)]]
    arrival = link.post(sent, "conv3", "backward")
    assert link.exchanges == []  # noted when it has arrived
    (for_0,), (for_1,) = arrival()
    assert torch.equal(for_0, sent[1][0]) and torch.equal(for_1, sent[0][0])
    (noted,) = link.exchanges
    assert (noted.crossing, noted.direction) == ("conv3", "backward")
    assert noted.begun <= noted.posted <= noted.wait_began <= noted.wait_ended
    assert plain.traffic.sent_by(0) == 2 * 3 * 4


def test_a_step_of_the_towers_has_an_exchange_for_every_crossing_and_direction():
    network = load_network("small")
    devices = dict.fromkeys(range(2), torch.device("cpu"))
    link = TimedLink(LocalLink(list(devices.values())))
    model = TowerModel(network, Placement("simulated", 2, devices), link, seed=0)
    sum(logits.sum() for logits in model.tower_logits([torch.randn(2, *network.image)] * 2)).backward()
    noted = [(each.crossing, each.direction) for each in link.exchanges]
    forward = [(name, "forward") for name in ("conv3", "fc6", "fc7", "fc8")]
    # The sum of logits has no backward pass.
    assert noted == [*forward, ("fc7", "backward"), ("fc6", "backward"), ("conv3", "backward")]
