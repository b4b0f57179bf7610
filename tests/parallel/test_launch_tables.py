"""Where a run's towers go, or why they cannot: every request and device against GPUs and processes, as tables.

A cell is the placement that the processes of one launch choose, and their devices in order of rank; or a refusal, whose
words stand below. Nothing is started: a process is its environment, the GPUs that it sees, and their UUIDs.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
import torch.distributed as dist

from alexnet_mp.errors import ConfigurationError
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.placement import Placement, choose_placement
from alexnet_mp.parallel.rendezvous import link_over_gpus

TOWERS = 2
GPUS = (0, 1, 2, 3, 8)  # of a node, the columns of the tables
PLACEMENTS = ("auto", "simulated", "two_devices", "distributed")
CUDA_4 = "distributed 0 1 2 3"

# Everything of one node is visible to every process: python alone, or torchrun --nproc-per-node. Device auto.
ONE_NODE = {
    # processes, placement: 0 GPUs, 1, 2, 3, 8
    (1, "auto"): ("simulated cpu", "simulated 0", "two_devices 0+1", "two_devices 0+1", "two_devices 0+1"),
    (1, "simulated"): ("simulated cpu", "simulated 0", "simulated 0", "simulated 0", "simulated 0"),
    (1, "two_devices"): ("too few: 0", "too few: 1", "two_devices 0+1", "two_devices 0+1", "two_devices 0+1"),
    (1, "distributed"): ("one process",) * 5,
    (2, "auto"): ("distributed cpu cpu", "shared", "distributed 0 1", "distributed 0 1", "distributed 0 1"),
    (2, "simulated"): ("simulated cpu cpu", "shared", "simulated 0 1", "simulated 0 1", "simulated 0 1"),
    (2, "two_devices"): ("several: 2",) * 5,
    (2, "distributed"): ("distributed cpu cpu", "shared", "distributed 0 1", "distributed 0 1", "distributed 0 1"),
    (4, "auto"): ("distributed cpu cpu cpu cpu", "shared", "4 for 2", "4 for 3", CUDA_4),
    (4, "simulated"): ("simulated cpu cpu cpu cpu", "shared", "4 for 2", "4 for 3", "simulated 0 1 2 3"),
    (4, "two_devices"): ("several: 4",) * 5,
    (4, "distributed"): ("distributed cpu cpu cpu cpu", "shared", "4 for 2", "4 for 3", CUDA_4),
}
# The same launches, but every process sees one GPU of its own, as index 0.
BOUND = {
    (1, "auto"): "simulated 0",
    (1, "simulated"): "simulated 0",
    (1, "two_devices"): "too few: 1",
    (1, "distributed"): "one process",
    (2, "auto"): "distributed 0 0",
    (2, "simulated"): "simulated 0 0",
    (2, "two_devices"): "several: 2",
    (2, "distributed"): "distributed 0 0",
    (4, "auto"): "distributed 0 0 0 0",
    (4, "simulated"): "simulated 0 0 0 0",
    (4, "two_devices"): "several: 4",
    (4, "distributed"): "distributed 0 0 0 0",
}
REFUSALS = {
    "no GPU": "device=cuda, but torch sees no GPU here; use device=cpu, or a CUDA build of torch",
    "one process": (
        "1 process cannot hold replicas of 2 towers, one each; start a multiple of 2, for example torchrun "
        "--nproc-per-node=2"
    ),
    "shared": (
        "ranks {ranks} share GPU GPU-0; start no more processes on a node than it has GPUs (--nproc-per-node), and let "
        "each see either all of them or one of its own (Slurm: --gpus-per-task=1 --gpu-bind=single:1), or use "
        "link=host or device=cpu"
    ),
    **{
        f"too few: {gpus}": (
            f"placement=two_devices needs 2 GPUs, one for each tower, and sees {gpus}; use placement=simulated, or on "
            "CPUs torchrun --nproc-per-node=2"
        )
        for gpus in (0, 1)
    },
    **{
        f"several: {processes}": (
            f"placement=two_devices is for one process, and these are {processes}: gradients of a network on several "
            "devices of one process have never been averaged over replicas; use placement=distributed, one process for "
            "each tower"
        )
        for processes in (2, 4)
    },
    **{
        f"4 for {gpus}": (
            f"4 processes on this node for {gpus} GPUs; use --nproc-per-node={gpus} or less, or device=cpu; training and "
            "evaluation share them with link=host"
        )
        for gpus in (2, 3)
    },
}
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")


@dataclass(frozen=True)
class Process:
    """What a process is told, and the UUIDs of the GPUs that it sees."""

    environment: dict[str, str]
    uuids: list[str]


def torchrun(rank: int, processes: int, local_rank: int | None = None) -> dict[str, str]:
    if processes == 1:
        return {}  # python alone; torchrun with one process says the same as nothing
    values = {"RANK": rank, "WORLD_SIZE": processes, "LOCAL_RANK": rank if local_rank is None else local_rank}
    return {name: str(value) for name, value in (values | {"LOCAL_WORLD_SIZE": processes}).items()}


def slurm(rank: int, processes: int) -> dict[str, str]:
    """srun, whose variables the job script exports as torchrun's; none of them is LOCAL_WORLD_SIZE."""
    of_slurm = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NTASKS": processes}
    exported = {"RANK": rank, "WORLD_SIZE": processes, "LOCAL_RANK": rank}
    return {name: str(value) for name, value in (of_slurm | exported).items()}


BOUND_BY = {
    "Slurm's --gpus-per-task=1": slurm,
    "torchrun --virtual-local-rank": lambda rank, processes: torchrun(rank, processes, local_rank=0),
    "a wrapper of torchrun that sets CUDA_VISIBLE_DEVICES": torchrun,
}


def outcome(processes: list[Process], placement: str, device: str, monkeypatch) -> str:
    """The cell of a table: what the processes choose, all as they are told, or what all of them say."""
    chosen: list[Placement] = []
    refused = set()
    for process in processes:
        with monkeypatch.context() as patched:
            for name in VARIABLES:
                patched.delenv(name, raising=False)
            for name, value in process.environment.items():
                patched.setenv(name, value)
            launch = Launch.from_environment()
        try:
            chosen.append(choose_placement(placement, device, TOWERS, launch, visible_gpus=len(process.uuids)))
        except ConfigurationError as error:
            refused.add(str(error))
    if not refused and len(processes) > 1:
        refused = compared(chosen, processes)
    if refused:
        assert len(refused) == 1, f"processes do not say the same: {refused}"
        (said,) = refused
        everyone = ", ".join(str(rank) for rank in range(len(processes)))
        return next(cell for cell, words in REFUSALS.items() if words.format(ranks=everyone) == said)
    assert len({each.kind for each in chosen}) == 1
    assert [each.launch.rank for each in chosen] == list(range(len(processes)))
    return f"{chosen[0].kind} {' '.join(map(devices, chosen))}"


def compared(chosen: list[Placement], processes: list[Process]) -> set[str]:
    """What is said of shared GPUs by those that are on one; the others do not compare."""
    store = dist.HashStore()

    def compare(placement: Placement, process: Process) -> str:
        device = placement.devices[placement.first_tower]
        if device.type == "cuda":
            try:
                link_over_gpus("direct", store, placement.launch, process.uuids[device.index])
            except ConfigurationError as error:
                return str(error)
        return ""

    with ThreadPoolExecutor(len(processes)) as pool:
        said = list(pool.map(compare, chosen, processes))
    assert all(said) or not any(said), "some of the processes would wait for the others"
    return set(said) - {""}


def devices(placement: Placement) -> str:
    each = list(dict.fromkeys(placement.devices.values()))
    return "+".join(str(device.index) if device.type == "cuda" else "cpu" for device in each)


def on_cpu_or_gpu(device: str, gpus: int, cells: tuple[str, ...]) -> str:
    """device=cpu is as if there were no GPU, device=cuda does not do without."""
    return "no GPU" if device == "cuda" and not gpus else cells[0 if device == "cpu" else GPUS.index(gpus)]


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
@pytest.mark.parametrize(("count", "placement"), ONE_NODE)
def test_where_every_process_sees_all_gpus(count, placement, device, monkeypatch):
    for gpus in GPUS:
        uuids = [f"GPU-{index}" for index in range(gpus)]
        processes = [Process(torchrun(rank, count), uuids) for rank in range(count)]
        expected = on_cpu_or_gpu(device, gpus, ONE_NODE[count, placement])
        assert outcome(processes, placement, device, monkeypatch) == expected, f"{gpus} GPUs"


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
@pytest.mark.parametrize("by", BOUND_BY)
@pytest.mark.parametrize(("count", "placement"), BOUND)
def test_where_every_process_sees_one_gpu_of_its_own(count, placement, by, device, monkeypatch):
    processes = [Process(BOUND_BY[by](rank, count), [f"GPU-{rank}"]) for rank in range(count)]
    expected = ONE_NODE[count, placement][0] if device == "cpu" else BOUND[count, placement]
    assert outcome(processes, placement, device, monkeypatch) == expected


def test_the_tables_are_whole():
    assert set(ONE_NODE) == set(BOUND) == {(count, placement) for count in (1, 2, 4) for placement in PLACEMENTS}
    said = {cell for row in ONE_NODE.values() for cell in row} | set(BOUND.values())
    assert set(REFUSALS) - said == {"no GPU"}


@pytest.mark.parametrize("placement", ["auto", "distributed", "simulated"])
def test_of_processes_bound_to_one_gpu_those_that_share_it_are_refused(placement, monkeypatch):
    processes = [Process(slurm(rank, 4), ["GPU-0"]) for rank in range(4)]
    assert outcome(processes, placement, "auto", monkeypatch) == "shared"


@pytest.mark.parametrize("local_rank", [None, 0], ids=["torchrun", "--virtual-local-rank"])
def test_on_two_nodes_a_bound_process_takes_its_gpu_too(local_rank, monkeypatch):
    def environment(rank: int) -> dict[str, str]:
        return torchrun(rank, 4, rank % 2 if local_rank is None else local_rank) | {"LOCAL_WORLD_SIZE": "2"}

    processes = [Process(environment(rank), [f"GPU-{rank}"]) for rank in range(4)]
    assert outcome(processes, "auto", "auto", monkeypatch) == "distributed 0 0 0 0"


def test_a_process_that_sees_its_own_gpu_alone_knows_no_device_of_its_peers():
    bound = choose_placement("auto", "auto", 2, Launch(1, 2, 0, 2, planned=False), visible_gpus=1)
    assert bound.replica_devices == bound.devices == {1: torch.device("cuda", 0)}
    sees_all = choose_placement("auto", "auto", 2, Launch(1, 2, 1, 2, planned=False), visible_gpus=2)
    assert sees_all.replica_devices == {tower: torch.device("cuda", tower) for tower in range(2)}


def test_a_launch_that_is_only_planned_has_the_gpus_that_are_seen_here():
    with pytest.raises(ConfigurationError, match="2 processes on this node for 1 GPU; use --nproc-per-node=1 or less"):
        choose_placement("auto", "auto", 2, Launch(0, 2, 0, 2), visible_gpus=1)
