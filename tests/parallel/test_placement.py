"""Which placement is chosen for a number of processes, towers and GPUs, or refused in every rank with the fix."""

import pytest
import torch

from alexnet_mp import ConfigurationError
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.placement import LinkChoice, Placement, choose_placement


def placed(
    rank: int = 0,
    world_size: int = 1,
    local_world_size: int | None = None,
    *,
    towers: int = 2,
    gpus: int = 0,
    placement: str = "auto",
    device: str = "auto",
    link: LinkChoice = "direct",
) -> Placement:
    local = local_world_size or world_size
    return choose_placement(placement, device, towers, Launch(rank, world_size, rank % local, local), gpus, link)


def devices(placement: Placement) -> dict[int, str]:
    return {tower: str(device) for tower, device in placement.devices.items()}


@pytest.mark.parametrize(
    "gpus, expected_kind, expected_devices",
    [
        (0, "simulated", {0: "cpu", 1: "cpu"}),
        (1, "simulated", {0: "cuda:0", 1: "cuda:0"}),
        (2, "two_devices", {0: "cuda:0", 1: "cuda:1"}),
        (8, "two_devices", {0: "cuda:0", 1: "cuda:1"}),
    ],
)
def test_auto_places_one_process_by_its_gpus(gpus: int, expected_kind: str, expected_devices: dict[int, str]) -> None:
    placement = placed(gpus=gpus)
    assert (placement.kind, placement.replicas, devices(placement)) == (expected_kind, 1, expected_devices)


@pytest.mark.parametrize("world_size", [2, 8])
@pytest.mark.parametrize("gpus", [0, 8])
def test_auto_places_several_processes_one_tower_each(world_size: int, gpus: int) -> None:
    for rank in range(world_size):
        placement = placed(rank, world_size, gpus=gpus)
        assert (placement.kind, placement.replicas) == ("distributed", world_size // 2)
        assert devices(placement) == {rank % 2: f"cuda:{rank}" if gpus else "cpu"}


def test_of_eight_processes_each_pair_of_neighbors_is_a_replica() -> None:
    held = [(placement.replica, *placement.devices) for placement in (placed(rank, 8) for rank in range(8))]
    assert held == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]


def test_of_eight_processes_with_four_towers_each_four_neighbors_are_a_replica() -> None:
    held = [(placement.replica, *placement.devices) for placement in (placed(rank, 8, towers=4) for rank in range(8))]
    assert held == [(rank // 4, rank % 4) for rank in range(8)]


def test_on_the_second_node_devices_are_counted_from_zero() -> None:
    placements = [placed(rank, 8, 4, gpus=4) for rank in range(4, 8)]
    assert [devices(placement) for placement in placements] == [
        {0: "cuda:0"},
        {1: "cuda:1"},
        {0: "cuda:2"},
        {1: "cuda:3"},
    ]
    assert [placement.replica for placement in placements] == [2, 2, 3, 3]


def test_two_devices_in_each_of_four_processes_are_refused_on_eight_gpus_too() -> None:
    for rank in range(4):
        with pytest.raises(ConfigurationError, match=r"for one process, and these are 4.*use placement=distributed"):
            placed(rank, 4, gpus=8, placement="two_devices")


def test_simulated_in_several_processes_is_a_replica_each() -> None:
    placements = [placed(rank, 4, gpus=4, placement="simulated") for rank in range(4)]
    assert [(p.replica, p.replicas, devices(p)) for p in placements] == [
        (rank, 4, {0: f"cuda:{rank}", 1: f"cuda:{rank}"}) for rank in range(4)
    ]


@pytest.mark.parametrize("world_size", [1, 8])
def test_device_cpu_leaves_gpus_alone(world_size: int) -> None:
    assert set(devices(placed(0, world_size, gpus=8, device="cpu")).values()) == {"cpu"}


def test_a_network_of_one_tower_is_simulated_on_the_first_of_two_gpus() -> None:
    placement = placed(towers=1, gpus=2)
    assert (placement.kind, devices(placement)) == ("simulated", {0: "cuda:0"})


def test_a_network_of_one_tower_is_replicated_over_any_number_of_processes() -> None:
    held = [(p.replica, p.replicas, *p.devices) for p in (placed(rank, 3, towers=1) for rank in range(3))]
    assert held == [(0, 3, 0), (1, 3, 0), (2, 3, 0)]


@pytest.mark.parametrize("placement", ["auto", "simulated", "distributed"])
@pytest.mark.parametrize("world_size, gpus, says", [(2, 1, "2 processes.*1 GPU;"), (8, 2, "8 processes.*2 GPUs;")])
def test_more_processes_than_gpus_are_refused(placement: str, world_size: int, gpus: int, says: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{says}.*--nproc-per-node={gpus} or less.*device=cpu"):
        placed(0, world_size, gpus=gpus, placement=placement)


@pytest.mark.parametrize("gpus, indices", [(1, [0, 0, 0, 0]), (2, [0, 1, 0, 1]), (3, [0, 1, 2, 0])])
def test_more_processes_than_gpus_take_them_in_turn_if_they_may_share(gpus: int, indices: list[int]) -> None:
    placements = [placed(rank, 4, gpus=gpus, link="auto") for rank in range(4)]
    assert [p.devices for p in placements] == [{r % 2: torch.device("cuda", i)} for r, i in enumerate(indices)]
    assert [p.replica_devices for p in placements] == [p.devices for p in placements], "of others nothing is known"


def test_gpus_are_counted_node_by_node() -> None:
    assert placed(0, 8, 4, gpus=4).kind == "distributed"
    with pytest.raises(ConfigurationError, match="4 processes on this node for 2 GPUs"):
        placed(0, 8, 4, gpus=2)


@pytest.mark.parametrize("towers, gpus", [(2, 1), (4, 3)])
def test_two_devices_need_a_gpu_for_every_tower(towers: int, gpus: int) -> None:
    says = f"needs {towers} GPUs, one for each tower, and sees {gpus}; use placement=simulated"
    with pytest.raises(ConfigurationError, match=says):
        placed(towers=towers, gpus=gpus, placement="two_devices")


@pytest.mark.parametrize("world_size, towers", [(3, 2), (7, 2), (6, 4), (1, 2)])
def test_processes_that_towers_do_not_divide_are_refused_in_every_rank(world_size: int, towers: int) -> None:
    for rank in range(world_size):
        with pytest.raises(ConfigurationError, match=f"^{world_size} process.*{towers} towers.*multiple of {towers}"):
            placed(rank, world_size, towers=towers, placement="distributed")


@pytest.mark.parametrize("world_size, local_world_size, towers", [(2, 1, 2), (6, 3, 2), (8, 2, 4)])
def test_a_replica_split_over_two_nodes_is_refused_in_every_rank(
    world_size: int, local_world_size: int, towers: int
) -> None:
    for rank in range(world_size):
        with pytest.raises(
            ConfigurationError, match=f"^--nproc-per-node={local_world_size} .*{towers} towers over two nodes"
        ):
            placed(rank, world_size, local_world_size, towers=towers)
