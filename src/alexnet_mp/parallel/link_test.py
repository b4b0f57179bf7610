"""Does what crosses between towers arrive as it was sent? The link's self-test, before anything trains on it.

Copies straight from one GPU's memory to another's can change values without any error: CUDA does not support them on a
bare-metal Linux whose IOMMU is on (CUDA C++ Programming Guide, "IOMMU on Linux"), and an IOMMU or PCIe Access Control
Services redirect them (NCCL User Guide, "Troubleshooting"). So every crossing carries known patterns once, both ways.
Such copies can also hang, so nothing is read from a GPU before it has the patterns, or has not had them for too long.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Tensor

from alexnet_mp.common.rng import keyed_generator
from alexnet_mp.errors import LinkError, PeerLost
from alexnet_mp.network.crossings import crossing_points
from alexnet_mp.network.table import Network
from alexnet_mp.parallel.links import Direction, Link, LocalLink, Traffic, peers_of
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.parallel.placement import Placement
from alexnet_mp.parallel.wait import wait_with_timeout

LARGEST_PARCEL = 4 * 2**20  # bytes: enough to see a link that corrupts, and little to wait for
HANGS_AFTER = 30.0  # seconds without such a parcel
_BY_HOST = "link=host in launch/train.py and launch/evaluate.py carries it through host memory; or "
_LOG = logging.getLogger("alexnet_mp.parallel.link_test")


@dataclass(frozen=True)
class Passage:
    """One direction of a crossing, and the shape [N, ...] of what one tower sends to one peer there."""

    crossing: str
    direction: Direction
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Corruption:
    """How many of a parcel's `values` arrived different from what was sent; sender and receiver are towers."""

    crossing: str
    direction: Direction
    sender: int
    sender_rank: int
    receiver: int
    receiver_rank: int
    differing: int
    values: int

    def in_words(self) -> str:
        return (
            f"{self.crossing} {self.direction} from tower {self.sender} (rank {self.sender_rank}) to tower "
            f"{self.receiver} (rank {self.receiver_rank}): {self.differing:,} of {self.values:,} values differ"
        )


@dataclass(frozen=True)
class LinkTest:
    """A link and what its self-test found, over all processes of the run.

    `corrupt` is None if nothing was tested, because nothing is carried; `corrupt_through_host` is None unless copies
    through host memory were tried after direct ones had failed.
    """

    link: Link | None
    corrupt: list[Corruption] | None
    corrupt_through_host: list[Corruption] | None = None


def checked_link(mesh: Mesh, network: Network, images_per_replica: int) -> Link | None:
    """The mesh's link, once it has carried patterns of every crossing and direction unchanged.

    Every process of the run calls it. If direct copies are corrupt and `Mesh.fallback` allows it, what crosses goes
    through host memory from then on, with a warning. Raises LinkError in every process if the link of one of them
    cannot be used.
    """
    tested = examined_link(mesh, network, images_per_replica)
    if tested.corrupt_through_host or (tested.corrupt and tested.corrupt_through_host is None):
        found = tested.corrupt_through_host or tested.corrupt
        assert found
        how = "also " if tested.corrupt_through_host else ""
        direct = not tested.corrupt_through_host and mesh.link_choice != "host"
        raise LinkError(
            f"what crosses between towers does not arrive {'' if direct else f'{how}through host memory '}as it was "
            f"sent: {in_words(found)}; {_BY_HOST if direct else ''}{what_to_do(mesh.placement, direct)}"
        )
    if tested.corrupt:
        _LOG.warning(
            "direct copies between the towers are corrupt: %s. They go through host memory now, as with link=host, "
            "which is slower; to mend it, %s",
            in_words(tested.corrupt),
            what_to_do(mesh.placement, direct=True),
        )
    return tested.link


def examined_link(mesh: Mesh, network: Network, images: int) -> LinkTest:
    """Test the mesh's link; every process of the run calls it, and every one gets what all have found.

    If direct copies are corrupt and `Mesh.fallback` allows it, the link through host memory is tested and takes their
    place. Raises LinkError in every process if a device of one of them does not get what was sent to it.
    """
    link = mesh.link()
    if link is None or (isinstance(link, LocalLink) and len(set(link.devices)) == 1):
        return LinkTest(link, None)
    corrupt = _everywhere(mesh, link, network, images, _tried(mesh, link, network, images))
    fallback = mesh.fallback(link) if corrupt else None
    if fallback is None:
        return LinkTest(link, corrupt)
    found = _tried(mesh, fallback, network, images, attempt=1)
    return LinkTest(fallback, corrupt, _everywhere(mesh, fallback, network, images, found))


def differing_values(
    link: Link, devices: Sequence[torch.device], network: Network, images: int, attempt: int = 0
) -> list[int]:
    """Send patterns through every passage; for each, each local tower and each of its peers: how many values differ.

    `devices` are the local towers', in tower order.

    What is sent is not counted as the link's traffic. Patterns of another `attempt` are others, so that one left behind
    in memory is not taken for one that has arrived. Raises LinkError if a device waits longer than HANGS_AFTER.
    """
    counts = []
    with _uncounted(link.traffic):
        for passage in passages(network, images):
            outgoing = [
                [_pattern(passage, tower, peer, attempt, device) for peer in peers_of(tower, link.towers)]
                for tower, device in zip(link.local_towers, devices, strict=True)
            ]
            incoming = link.post(outgoing, passage.crossing, passage.direction)()
            try:
                for device in devices:
                    wait_with_timeout(device, HANGS_AFTER)
            except PeerLost as error:
                where = f"{passage.crossing} {passage.direction}"
                raise LinkError(f"{where}: copies between GPUs hang, or another process does: {error}") from error
            for tower, device, parcels in zip(link.local_towers, devices, incoming, strict=True):
                for peer, parcel in zip(peers_of(tower, link.towers), parcels, strict=True):
                    expected = _pattern(passage, peer, tower, attempt, device)
                    # As whole numbers: NaN is not equal to itself, and 0.0 is to -0.0.
                    unequal = parcel.view(torch.int32) != expected.view(torch.int32)
                    counts.append(int(torch.count_nonzero(unequal)))
    return counts


def passages(network: Network, images: int, largest: int | None = LARGEST_PARCEL) -> list[Passage]:
    """Every crossing and direction of a network, in the order of a step.

    With so many images, or as many as `largest` bytes of float32 hold, but at least one.
    """
    forward, backward = [], []
    for point in filter(None, crossing_points(network)):
        fit = images if largest is None else max(1, min(images, largest // (4 * prod(point.shape))))
        forward.append(Passage(point.name, "forward", (fit, *point.shape)))
        if point.has_backward:
            backward.append(Passage(point.name, "backward", (fit, *point.shape)))
    return forward + backward[::-1]


def in_words(found: list[Corruption]) -> str:
    """The first of what was found, and how many more."""
    more = len(found) - 1
    return found[0].in_words() + (f" (and {more} more transfer{'s' if more > 1 else ''})" if more else "")


def what_to_do(placement: Placement, direct: bool) -> str:
    """What the user can mend; `direct`: copies from device to device are to blame, where the towers are on GPUs."""
    if not direct or next(iter(placement.devices.values())).type != "cuda":
        until_then = "" if direct else "; until then nothing trained here is right"
        return f"check this machine's memory, and the network between processes{until_then}"
    through_host = "start again with NCCL_P2P_DISABLE=1, or " if placement.kind == "distributed" else ""
    return (
        f"{through_host}turn off the IOMMU (VT-d, AMD-Vi) in the firmware or on the kernel's command line, and ACS on "
        "the PCIe bridges between the GPUs; see docs.nvidia.com: CUDA C++ Programming Guide, IOMMU on Linux; NCCL User "
        "Guide, Troubleshooting"
    )


def _tried(mesh: Mesh, link: Link, network: Network, images: int, attempt: int = 0) -> list[int]:
    """`differing_values` of this process's towers, unless a copy hangs in one of the processes."""
    found, hangs = list[int](), ""
    try:
        found = differing_values(link, list(mesh.placement.devices.values()), network, images, attempt)
    except LinkError as error:
        hangs = str(error)
    if mesh.any(bool(hangs)):
        direct = mesh.link_choice != "host"
        raise LinkError(
            f"{hangs or 'what crosses between the towers of another process does not arrive'}; "
            f"{_BY_HOST if direct else ''}{what_to_do(mesh.placement, direct)}"
        )
    return found


def _everywhere(mesh: Mesh, link: Link, network: Network, images: int, found: list[int]) -> list[Corruption]:
    """What all processes have found, by rank; `found` is this process's, from `differing_values`."""
    everyone = mesh.gather([float(count) for count in found])
    one_tower_each = len(link.local_towers) < link.towers
    corrupt = []
    for rank, counts in enumerate(everyone):
        # Tower is the fastest axis of the mesh.
        receivers = [rank % link.towers] if one_tower_each else range(link.towers)
        transfers = [
            (passage, receiver, sender)
            for passage, receiver in product(passages(network, images), receivers)
            for sender in peers_of(receiver, link.towers)
        ]
        for (passage, receiver, sender), count in zip(transfers, counts, strict=True):
            if count:
                sender_rank = rank - receiver + sender if one_tower_each else rank
                values = prod(passage.shape)
                where = (passage.crossing, passage.direction, sender, sender_rank, receiver, rank)
                corrupt.append(Corruption(*where, int(count), values))
    return corrupt


def _pattern(passage: Passage, sender: int, receiver: int, attempt: int, device: torch.device) -> Tensor:
    """Random bits, taken for float32, in the layout that the crossing has."""
    generator = keyed_generator(attempt, "link", passage.crossing, passage.direction, sender, receiver)
    maps = len(passage.shape) == 4
    images, *rest = passage.shape
    drawn = (images, *rest[1:], rest[0]) if maps else passage.shape  # maps are in channels_last
    bits = torch.randint(-(2**31), 2**31, drawn, generator=generator, dtype=torch.int32).to(device).view(torch.float32)
    return bits.permute(0, 3, 1, 2) if maps else bits


@contextmanager
def _uncounted(traffic: Traffic) -> Iterator[None]:
    """Leave a link's counts as they were."""
    before = dict(traffic.bytes_sent)
    try:
        yield
    finally:
        traffic.bytes_sent.clear()
        traffic.bytes_sent.update(before)
