"""The link's self-test: one flipped bit is found and named, a healthy link passes, and nothing of it stays behind."""

import contextlib
import io
import logging
import sys
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

import alexnet_mp.parallel.mesh
import alexnet_mp.training.train
from alexnet_mp import load_network
from alexnet_mp.commands import train
from alexnet_mp.errors import LinkError, PeerLost
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel.host_link import HostLink
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.link_test import checked_link, differing_values, passages, what_to_do
from alexnet_mp.parallel.links import LocalLink, ProcessLink
from alexnet_mp.parallel.mesh import Mesh, make_mesh
from alexnet_mp.parallel.placement import LinkChoice, Placement, choose_placement
from alexnet_mp.training.loss import LossOnEveryTower
from tests.support.disturbed import assert_ended_alike, trained
from tests.support.processes import as_under_torchrun, run_processes
from tests.support.transports import run_over
from tests.training.test_train import NARROW

CPU = torch.device("cpu")
DEVICES = {tower: torch.device(f"cpu:{tower}") for tower in range(2)}
TWO_DEVICES = Placement("two_devices", 2, DEVICES)
PASSAGES = [  # `small`, in the order of a step
    *(("conv3", "forward"), ("fc6", "forward"), ("fc7", "forward"), ("fc8", "forward")),
    *(("fc7", "backward"), ("fc6", "backward"), ("conv3", "backward")),
]


def flip_one_bit(parcel: Tensor, bit: int = 0) -> None:
    bits = parcel.view(torch.int32)
    bits[(-1,) * parcel.ndim] ^= -(2**31) if bit == 31 else 1 << bit


def corrupt(original: type[LocalLink], where: tuple[str, str], host: bool, bit: int = 0) -> type[LocalLink]:
    """A link that flips one bit of what reaches tower 1 in one crossing and direction, when copied directly.

    With `host` also when copied through host memory.
    """

    class Corrupt(original):  # type: ignore[misc, valid-type]
        def post(self, outgoing, crossing, direction):
            self.where = crossing, direction
            return super().post(outgoing, crossing, direction)

        def _flipped(self, copy, device):
            if self.where == where and device == DEVICES[1]:
                flip_one_bit(copy, bit)
            return copy

        def _copy_directly(self, parcel, device):
            return self._flipped(super()._copy_directly(parcel, device), device)

        def _copy(self, parcel, device):
            copy = super()._copy(parcel, device)
            return self._flipped(copy, device) if host and self.through_host else copy

    return Corrupt


class CorruptProcessLink(ProcessLink):
    """Flips one bit of what reaches the process of the highest rank in fc6's backward pass."""

    def post(self, outgoing, crossing, direction):
        arrive = super().post(outgoing, crossing, direction)

        def corrupted():
            parcels = arrive()
            last = torch.distributed.get_rank() == torch.distributed.get_world_size() - 1
            if last and (crossing, direction) == ("fc6", "backward"):
                flip_one_bit(parcels[0][0])
            return parcels

        return corrupted


@pytest.mark.parametrize("where", PASSAGES, ids="-".join)
def test_one_flipped_bit_in_a_direct_copy_is_found_and_copies_go_through_host_memory(where, monkeypatch, caplog):
    monkeypatch.setattr(alexnet_mp.parallel.mesh, "LocalLink", corrupt(LocalLink, where, host=False))
    with caplog.at_level(logging.WARNING, "alexnet_mp"):
        link = checked_link(Mesh(TWO_DEVICES, None), load_network("small"), 2)
    assert isinstance(link, LocalLink) and link.through_host
    (warning,) = caplog.messages
    assert f"{where[0]} {where[1]} from tower 0 (rank 0) to tower 1 (rank 0): 1 of" in warning
    assert "through host memory now" in warning

    # And what follows trains on the right values: as if nothing had ever been copied directly.
    images, labels = torch.randn(2, 3, 16, 16), torch.tensor([1, 2])
    networks = [
        TowerModel(load_network("small"), TWO_DEVICES, each, seed=0) for each in (link, LocalLink([*DEVICES.values()]))
    ]
    for model in networks:
        torch.autograd.backward(LossOnEveryTower(model)([images] * 2, [labels] * 2, step=0))
    for ours, theirs in zip(*(model.parameters() for model in networks), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("bit", [0, 22, 23, 30, 31])
def test_any_bit_of_a_value_counts_also_where_that_is_no_number(bit, monkeypatch):
    link = corrupt(LocalLink, ("fc7", "forward"), host=False, bit=bit)([*DEVICES.values()])
    counts = differing_values(link, [*DEVICES.values()], load_network("small"), 64)
    # For each passage, what tower 0 received and what tower 1 did.
    assert counts == [
        int(passage == ("fc7", "forward") and receiver == 1) for passage in PASSAGES for receiver in (0, 1)
    ]


def test_copies_that_are_corrupt_through_host_memory_too_stop_the_run(monkeypatch):
    monkeypatch.setattr(alexnet_mp.parallel.mesh, "LocalLink", corrupt(LocalLink, ("fc8", "forward"), host=True))
    with pytest.raises(LinkError, match=r"also through host memory.*fc8 forward from tower 0 .*: 1 of 20 values"):
        checked_link(Mesh(TWO_DEVICES, None), load_network("small"), 2)


def of_a_process(corrupted: bool, choice: LinkChoice) -> tuple[str, int]:
    """What the check says in this process, and how many exchanges it left in the link's count."""
    world = torch.distributed.get_world_size()
    launch = Launch.from_environment(torch.distributed.get_rank(), world)
    mesh = make_mesh(choose_placement("distributed", "cpu", 2, launch), 30, choice)
    with patch.object(alexnet_mp.parallel.mesh, "ProcessLink", CorruptProcessLink if corrupted else ProcessLink):
        try:
            link = checked_link(mesh, load_network("small"), 3)
        except LinkError as error:
            return str(error), 0
    assert type(link) is (HostLink if corrupted or choice == "host" else ProcessLink)
    return "", len(link.traffic.bytes_sent)


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("transport", ["gloo", pytest.param("strict NCCL", marks=pytest.mark.slow)])
def test_every_process_stops_where_one_receives_a_flipped_bit(transport, processes):
    results = run_over(transport, processes, of_a_process, True, "direct")
    message = results[0][0]
    assert "; link=host in launch/train.py and launch/evaluate.py carries it through host memory; or check" in message
    sender, receiver = processes - 2, processes - 1
    assert f"fc6 backward from tower 0 (rank {sender}) to tower 1 (rank {receiver}): 1 of 384 values differ" in message
    assert results == [(message, 0)] * processes


GPUS = Placement("two_devices", 2, {tower: torch.device("cuda", tower) for tower in range(2)})


def never_done(device: torch.device, seconds: float) -> None:
    """A GPU that waits for a copy that hangs."""
    assert seconds == 30
    raise PeerLost(f"{device} did not finish its work within 30 s")


def test_a_copy_that_hangs_between_the_gpus_of_a_process_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(alexnet_mp.parallel.link_test, "wait_with_timeout", never_done)
    monkeypatch.setattr(torch, "count_nonzero", lambda *_: pytest.fail("a number was read from a GPU that hangs"))
    link = LocalLink([*DEVICES.values()])
    monkeypatch.setattr(Mesh, "link", lambda self: link)
    for placement, said in (
        (GPUS, "carries it through host memory; or turn off the IOMMU"),
        (replace(GPUS, kind="distributed"), "or start again with NCCL_P2P_DISABLE=1, or turn off the IOMMU"),
    ):
        monkeypatch.setattr(alexnet_mp.parallel.link_test, "_pattern", lambda p, s, r, a, device: torch.zeros(p.shape))
        with pytest.raises(LinkError, match=r"conv3 forward: copies between GPUs hang.*cuda:0 did not") as raised:
            checked_link(Mesh(placement, None), load_network("small"), 2)
        assert said in str(raised.value)


def of_a_process_that_hangs() -> str:
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    mesh = make_mesh(choose_placement("distributed", "cpu", 2, Launch.from_environment(rank, world)), 30)
    hanging = patch.object(alexnet_mp.parallel.link_test, "wait_with_timeout", never_done)
    with hanging if rank > 1 else contextlib.nullcontext(), pytest.raises(LinkError) as raised:
        checked_link(mesh, load_network("small"), 3)
    return str(raised.value)


def test_every_process_stops_where_a_copy_of_one_replica_hangs():
    said = run_processes(4, of_a_process_that_hangs)
    assert all("between the towers of another process does not arrive" in words for words in said[:2])
    assert all("conv3 forward: copies between GPUs hang" in words for words in said[2:])


def test_every_process_takes_the_host_link_if_one_receives_a_flipped_bit_directly_and_both_links_are_allowed():
    assert run_processes(4, of_a_process, True, "auto") == [("", 0)] * 4


@pytest.mark.parametrize(
    ("transport", "choice"),
    [("gloo", "auto"), ("gloo", "host"), pytest.param("strict NCCL", "direct", marks=pytest.mark.slow)],
)
def test_a_healthy_link_between_processes_passes_and_its_traffic_stays_uncounted(transport, choice):
    assert run_over(transport, 2, of_a_process, False, choice) == [("", 0)] * 2


def test_one_process_with_a_direct_link_alone_is_refused_if_copies_between_its_devices_are_corrupt(monkeypatch):
    monkeypatch.setattr(alexnet_mp.parallel.mesh, "LocalLink", corrupt(LocalLink, ("fc7", "forward"), host=False))
    with pytest.raises(
        LinkError, match=r"does not arrive as it was sent: fc7 forward .*; link=host in launch/train.py"
    ):
        checked_link(make_mesh(TWO_DEVICES, 30, "direct"), load_network("small"), 2)
    link = checked_link(make_mesh(TWO_DEVICES, 30, "host"), load_network("small"), 2)
    assert isinstance(link, LocalLink) and link.through_host


def test_replicas_that_average_gradients_between_gpus_do_not_go_on_with_what_crosses_through_the_host():
    groups = [GPUS, replace(GPUS, kind="distributed"), replace(GPUS, kind="distributed", replicas=2)]
    links = [Mesh(each, None).fallback(LocalLink([CPU])) for each in groups[:1]]
    assert links[0] is not None and links[0].through_host
    direct = SimpleNamespace()  # a ProcessLink, which needs processes
    axes = SimpleNamespace(mesh=torch.tensor([[0, 1], [2, 3]]))
    assert Mesh(groups[2], axes).fallback(direct) is None
    assert Mesh(groups[1], axes, link_choice="host").fallback(direct) is None
    assert Mesh(groups[1], axes, link_choice="direct").fallback(direct) is None


def test_a_healthy_link_between_devices_passes_and_keeps_its_counts(caplog):
    link = LocalLink([*DEVICES.values()])
    link.post([[torch.ones(3)], [torch.ones(3)]], "conv3", "forward")()
    before = dict(link.traffic.bytes_sent)
    assert not any(differing_values(link, [*DEVICES.values()], load_network("small"), 2))
    assert dict(link.traffic.bytes_sent) == before == {(0, "conv3", "forward"): 12, (1, "conv3", "forward"): 12}
    checked = checked_link(Mesh(TWO_DEVICES, None), load_network("small"), 2)
    assert isinstance(checked, LocalLink) and not checked.through_host and not caplog.messages


@pytest.mark.parametrize("network", ["small", "one_column"])
def test_nothing_is_sent_where_nothing_is_carried(network, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("sent something")

    monkeypatch.setattr(LocalLink, "post", refuse)
    table = load_network(network)
    placement = Placement("simulated", table.towers, dict.fromkeys(range(table.towers), torch.device("cpu")))
    checked_link(Mesh(placement, None), table, 2)


class NotedLink(LocalLink):
    """A link that keeps what it was given, in order."""

    def __init__(self, towers: int) -> None:
        super().__init__([torch.device(f"cpu:{tower}") for tower in range(towers)])
        self.posts: list[tuple[str, str, list[list[Tensor]]]] = []

    def post(self, outgoing, crossing, direction):
        self.posts.append((crossing, direction, [[parcel.clone() for parcel in parcels] for parcels in outgoing]))
        return super().post(outgoing, crossing, direction)

    def layout(self) -> list[tuple]:
        """Shapes, and how the maps of the forward pass lie in memory; how gradients do is left to autograd.

        What the towers post one by one is put together.
        """
        layouts: dict[tuple[str, str], list[list]] = {}
        for crossing, direction, each in self.posts:
            found = [[(p.shape, p.stride() if direction == "forward" else None) for p in t] for t in each]
            before = layouts.get((crossing, direction), [[] for _ in each])
            layouts[crossing, direction] = [a + b for a, b in zip(before, found, strict=True)]
        return list(layouts.items())


@pytest.mark.parametrize("towers", [2, 4])
def test_patterns_have_the_order_sizes_and_layouts_of_a_real_step(towers):
    table = replace(load_network("small", towers), image=(3, 32, 32))  # so that fc6 reads maps, not points
    tested, real = NotedLink(towers), NotedLink(towers)
    assert not any(differing_values(tested, real.devices, table, 3))
    model = TowerModel(table, Placement("two_devices", towers, dict(enumerate(real.devices))), real, seed=0)
    losses = LossOnEveryTower(model)([torch.randn(3, 3, 32, 32)] * towers, [torch.tensor([1, 2, 3])] * towers, step=0)
    torch.autograd.backward(losses)
    assert tested.layout() == real.layout()


def test_patterns_set_and_clear_every_bit_and_no_two_are_alike():
    link = NotedLink(4)
    differing_values(link, link.devices, load_network("small", 4), 16)
    differing_values(link, link.devices, load_network("small", 4), 16, attempt=1)
    parcels = [parcel.view(torch.int32) for *_, outgoing in link.posts for tower in outgoing for parcel in tower]
    assert len(parcels) == 2 * 7 * 4 * 3
    for parcel in parcels:
        bits = parcel.flatten().tolist()
        assert all(any(value >> bit & 1 for value in bits) for bit in range(32))
        assert all(any(not value >> bit & 1 for value in bits) for bit in range(32))
    assert len({tuple(parcel.flatten()[:8].tolist()) for parcel in parcels}) == len(parcels)


def test_a_large_batch_is_tested_with_a_few_megabytes():
    sizes = {
        passage.crossing: torch.Size(passage.shape).numel() * 4 for passage in passages(load_network("paper"), 512)
    }
    assert sizes["conv3"] == 48 * 128 * 13 * 13 * 4  # the most images that stay within 4 MiB
    assert all(size <= 4 * 2**20 for size in sizes.values())
    assert passages(load_network("paper"), 128)[-1].shape == (48, 128, 13, 13)


@pytest.mark.parametrize(
    ("kind", "device", "direct", "words"),
    [
        ("distributed", "cuda", True, "NCCL_P2P_DISABLE=1, or turn off the IOMMU"),
        ("two_devices", "cuda", True, "turn off the IOMMU"),
        ("two_devices", "cuda", False, "check this machine's memory"),
        ("distributed", "cpu", True, "check this machine's memory"),
    ],
)
def test_the_message_says_what_to_do(kind, device, direct, words):
    said = what_to_do(Placement(kind, 2, {0: torch.device(device, 0)}), direct)
    assert words in said
    assert ("NCCL_P2P_DISABLE" in said) == (kind == "distributed" and device == "cuda")


def train_over_a_corrupt_link(folder: str, *overrides: str) -> tuple[int, str]:
    """Exit code and standard error of the train command in this process."""
    said = io.StringIO()
    with (
        as_under_torchrun(),
        patch.object(alexnet_mp.training.train, "keep_large_blocks"),
        patch.object(alexnet_mp.parallel.mesh, "ProcessLink", CorruptProcessLink),
        patch.object(sys, "argv", ["train.py", f"run_dir={folder}", "recipe.epochs=1", "device=cpu", *overrides]),
        contextlib.redirect_stderr(said),
    ):
        try:
            train.main()
        except SystemExit as ended:
            return ended.code, said.getvalue()
    return 0, said.getvalue()


def test_training_over_a_corrupt_link_ends_every_process_with_one_line_before_its_first_step(tmp_path):
    codes, said = zip(*run_processes(2, train_over_a_corrupt_link, str(tmp_path / "run"), "link=direct"), strict=True)
    assert codes == (1, 1)
    of_rank_0, of_rank_1 = [line for line in "".join(said).splitlines() if line.startswith("error: ")]
    assert "fc6 backward from tower 0 (rank 0) to tower 1 (rank 1): 1 of 8,192 values differ" in of_rank_0
    assert of_rank_1 == of_rank_0.replace("error: ", "error: rank 1: ")  # no torchrun, which would end it unheard
    assert "Traceback" not in "".join(said)
    assert not (tmp_path / "run").exists()


def test_training_over_a_corrupt_link_goes_on_through_the_host_and_ends_as_over_a_healthy_one(tmp_path):
    codes, said = zip(*run_processes(2, train_over_a_corrupt_link, str(tmp_path / "run"), *NARROW), strict=True)
    assert codes == (0, 0)
    warned = (
        "direct copies between the towers are corrupt: fc6 backward from tower 0 (rank 0) to tower 1 (rank 1): 1 of"
    )
    assert warned in said[0] and "through host memory now, as with link=host" in said[0]
    assert warned in (tmp_path / "run" / "train.log").read_text()
    assert_ended_alike(trained(tmp_path / "healthy", "recipe.epochs=1", *NARROW), tmp_path / "run")
