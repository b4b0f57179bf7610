"""What a run says of its GPUs at start-up: their memory, what joins them, and peer access."""

import pytest

from alexnet_mp.parallel.placement import Placement
from tests.support.nvml_library import (
    CUDA,
    DEVICE_FUNCTIONS,
    NOT_SUPPORTED,
    NVLINK,
    PEERS,
    READ,
    SWITCH,
    TO_SWITCH,
    WRITE,
    NvLink,
    gpu,
    metrics,
    two_towers,
    words,
)


def test_two_gpus_with_nvlink_are_named_with_their_memory_driver_and_links(machine):
    # Four links to each other, one of them down, two to a third GPU that this run does not use.
    first, second = gpu(0), gpu(1, memory=(80 * 2**30, 40 * 2**30, 40 * 2**30))
    first.nvlinks = [
        NvLink(second.pci),
        NvLink(gpu(7).pci),
        *[NvLink(second.pci)] * 2,
        NvLink(second.pci, active=False),
    ]
    second.nvlinks = [NvLink(first.pci)] * 3
    machine(first, second, peer={READ: 0, WRITE: 0, NVLINK: 0})
    assert words(two_towers()) == [
        "driver 570.86.15",
        "tower 0: NVIDIA Test 0 at 00000000:10:00, 79.0 of 80.0 GiB free",
        "tower 1: NVIDIA Test 1 at 00000000:11:00, 40.0 of 80.0 GiB free",
        "towers 0 and 1: NVLink, 3 links; peer access (torch: yes)",
    ]


def test_nvlinks_that_meet_in_a_switch_are_counted_apart(machine):
    first, second = (gpu(n, nvlinks=[NvLink(SWITCH, TO_SWITCH)] * links) for n, links in ((0, 18), (1, 17)))
    machine(first, second, peer={READ: 0, WRITE: 0, NVLINK: 0})
    assert words(two_towers())[-1] == "towers 0 and 1: NVLink through NVSwitch, 17 links each; peer access (torch: yes)"


def test_a_switch_that_does_not_join_the_two_is_not_taken_for_a_link(machine):
    first, second = (gpu(n, nvlinks=[NvLink(SWITCH, TO_SWITCH)] * 18) for n in (0, 1))
    machine(first, second, peer=PEERS)
    assert words(two_towers())[-1].startswith("towers 0 and 1: PCIe gen 4 x16")


def test_nvlink_without_a_count_is_said_so(machine):
    machine(gpu(0), gpu(1), peer={READ: 0, WRITE: 0, NVLINK: 0})
    assert words(two_towers())[-1].startswith("towers 0 and 1: NVLink, number of links not told")


def test_two_gpus_over_pcie_of_different_generations(machine):
    machine(gpu(0, pcie=(4, 16, 4, 16)), gpu(1, pcie=(1, 8, 3, 8)), peer=PEERS, topology=10)
    assert words(two_towers())[-1] == (
        "towers 0 and 1: PCIe gen 4 x16 and gen 1 x8 (at most gen 3 x8), through one PCIe switch; "
        "peer access (torch: yes)"
    )


@pytest.mark.parametrize(
    ("level", "says"),
    [
        (0, "on one board"),
        (10, "through one PCIe switch"),
        (20, "through several PCIe switches"),
        (30, "through one host bridge"),
        (40, "through the host bridges of one NUMA node"),
        (50, "from one NUMA node to another"),
        (60, "gen 4 x16"),  # a level that nobody knows yet
    ],
)
def test_the_nearest_common_point_of_two_gpus_is_named(machine, level, says):
    machine(gpu(0), gpu(1), peer=PEERS, topology=level)
    assert words(two_towers())[-1].split(";")[0].endswith(says)


@pytest.mark.parametrize(
    ("peer", "says"),
    [
        ({READ: 1, WRITE: 1, NVLINK: 5}, "no peer access: the chipset does not support it (torch: no)"),
        ({READ: 2, WRITE: 2, NVLINK: 5}, "no peer access: the GPU does not support it (torch: no)"),
        ({READ: 0, WRITE: 4, NVLINK: 5}, "peer access: read ok, write disabled in the driver's settings (torch: no)"),
        ({READ: 5, WRITE: 6, NVLINK: 5}, "peer access: read not supported, write not told (torch: no)"),
        (None, "peer access not told (torch: no)"),
    ],
)
def test_peer_access_is_told_by_nvml_and_by_torch(machine, peer, says):
    machine(gpu(0), gpu(1), peer=peer, torch_peer=False)
    assert words(two_towers())[-1] == f"towers 0 and 1: PCIe gen 4 x16, through one host bridge; {says}"


def test_all_neighbors_of_four_towers_are_told(machine):
    machine(*(gpu(n) for n in range(4)), peer=PEERS)
    lines = words(Placement("two_devices", 4, dict(enumerate(CUDA))))
    assert [line.split(":")[0] for line in lines[-3:]] == ["towers 0 and 1", "towers 1 and 2", "towers 2 and 3"]


def test_towers_on_one_gpu_have_no_link_and_one_state(machine):
    machine(gpu(0))
    placement = Placement("simulated", 2, {0: CUDA[0], 1: CUDA[0]})
    assert len(words(placement)) == 3
    found = metrics(placement)
    assert found["tower0_gpu_power_watts"] == found["tower1_gpu_power_watts"] == 250.5


def test_a_gpu_that_tells_nothing_of_itself_is_still_listed(machine):
    silent = {name: NOT_SUPPORTED for name in DEVICE_FUNCTIONS if "Handle" not in name}
    machine(gpu(0, errors=silent), gpu(1), visible=(gpu(0), gpu(9)))
    assert words(two_towers())[1:] == [
        "tower 0: unnamed GPU, memory not told",
        "tower 1: a GPU that NVML does not know",
    ]
    machine(gpu(0, errors=silent), gpu(1, errors=silent), peer=PEERS)
    assert words(two_towers())[-1] == (
        "towers 0 and 1: PCIe of unknown generation and width; peer access not told (torch: yes)"
    )
