"""A run's GPUs tower by tower: which they are, what its metrics say, and that it trains on without a driver."""

import json
from pathlib import Path

import pytest
import torch

from alexnet_mp.common.cli import compose
from alexnet_mp.common.gpu import energy_joules
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.placement import Placement, choose_placement
from alexnet_mp.parallel.telemetry import open_telemetry
from alexnet_mp.training.train import train
from tests.support.nvml_library import (
    CUDA,
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    NOT_SUPPORTED,
    PEERS,
    STATE,
    UUID,
    VERSION_MISMATCH,
    WITHOUT,
    FakeGpu,
    FakeNvml,
    gpu,
    install,
    metrics,
    two_towers,
    words,
)


def test_devices_are_known_by_uuid_where_cuda_visible_devices_reorders_them(machine):
    gpus = [gpu(n, milliwatts=1000 * n) for n in range(4)]
    machine(*gpus, visible=(gpus[3], gpus[1]), peer=PEERS)
    assert words(two_towers())[1:3] == [
        "tower 0: NVIDIA Test 3 at 00000000:13:00, 79.0 of 80.0 GiB free",
        "tower 1: NVIDIA Test 1 at 00000000:11:00, 79.0 of 80.0 GiB free",
    ]
    found = metrics(two_towers())
    assert (found["tower0_gpu_power_watts"], found["tower1_gpu_power_watts"]) == (3, 1)


def test_a_mig_instance_tells_its_own_memory_and_no_power(machine):
    errors = {name: NOT_SUPPORTED for field, name in STATE.items() if field != "memory_bytes"}
    errors["nvmlDeviceGetTemperature"] = errors["nvmlDeviceGetTotalEnergyConsumption"] = NOT_SUPPORTED
    instance = FakeGpu("MIG-" + UUID[4:] + "5", memory=(10 * 2**30, 9 * 2**30, 2**30), errors=errors)
    machine(gpu(0), instance, visible=(instance,))
    placement = Placement("simulated", 1, {0: CUDA[0]})
    assert metrics(placement) == {"tower0_gpu_memory_bytes": 2**30}
    assert energy_joules([CUDA[0]]) is None


def test_the_main_process_finds_the_gpus_of_its_replicas_other_processes():
    for rank in range(8):
        placement = choose_placement("auto", "auto", 4, Launch(rank, 8, rank, 8), visible_gpus=8)
        first = rank // 4 * 4
        assert placement.replica_devices == {t: torch.device("cuda", first + t) for t in range(4)}
        assert placement.replica_devices.items() >= placement.devices.items()


@pytest.mark.parametrize(("kind", "launch"), [("simulated", Launch(1, 2, 1, 2)), ("two_devices", Launch())])
def test_other_placements_hold_all_devices_themselves(kind, launch):
    placement = choose_placement(kind, "cuda", 2, launch, visible_gpus=4)
    assert placement.replica_devices == placement.devices


def test_a_main_process_that_is_bound_to_one_gpu_reads_that_one(machine):
    machine(gpu(0, celsius=50), gpu(1, celsius=60), visible=(gpu(0, celsius=50),), peer=PEERS)
    bound = choose_placement("auto", "auto", 2, Launch(0, 2, 0, 2, planned=False), visible_gpus=1)
    found = metrics(bound)
    assert found["tower0_gpu_temperature_celsius"] == 50 and "tower1_gpu_temperature_celsius" not in found


def test_on_cpus_every_tower_is_on_the_cpu():
    placement = choose_placement("auto", "cpu", 2, Launch(1, 2, 1, 2))
    assert placement.replica_devices == {0: torch.device("cpu"), 1: torch.device("cpu")}


def test_of_two_processes_the_main_one_reads_both_gpus_and_the_other_none(machine):
    library = machine(gpu(0, celsius=50), gpu(1, celsius=60), peer=PEERS)
    main, other = (choose_placement("auto", "auto", 2, Launch(r, 2, r, 2), visible_gpus=2) for r in range(2))
    found = metrics(main)
    assert [found[f"tower{tower}_gpu_temperature_celsius"] for tower in (0, 1)] == [50, 60]
    library.calls.clear()
    with open_telemetry(other) as telemetry:
        assert (telemetry.words, telemetry.metrics()) == ("", {})
    assert not library.calls


@pytest.mark.parametrize(
    ("library", "says"),
    [
        (None, "no NVIDIA driver found (NVML Shared Library Not Found)"),
        (FakeNvml(init=DRIVER_NOT_LOADED), "the NVIDIA driver is not loaded (Driver Not Loaded)"),
        (FakeNvml(init=VERSION_MISMATCH), "the NVIDIA driver and its library are of different versions (RM has "),
        (FakeNvml(init=4), "NVML could not be opened (Insufficient Permissions)"),
        (FakeNvml(init=4321), "NVML could not be opened (a code from the future)"),
        (FakeNvml(missing=("nvmlInitWithFlags",)), "NVML could not be opened (Function Not Found)"),
    ],
)
def test_without_a_driver_one_line_says_so_and_nothing_is_read(monkeypatch, library, says):
    install(monkeypatch, library)
    for placement in (two_towers(), Placement("simulated", 2, dict.fromkeys(range(2), torch.device("cpu")))):
        (line,) = words(placement)
        assert line.startswith(says) and line.endswith(f"; {WITHOUT}")
        assert metrics(placement) == {}


def test_a_run_on_the_cpu_wakes_no_gpu_of_its_machine(machine):
    library = machine(gpu(0))
    cpu = Placement("simulated", 2, dict.fromkeys(range(2), torch.device("cpu")))
    with open_telemetry(cpu) as telemetry:
        assert telemetry.words == f"driver 570.86.15, but no tower is on a GPU; {WITHOUT}"
        assert not library.attached
        assert telemetry.metrics() == {}


def test_nvml_is_closed_when_the_training_fails(machine):
    library = machine(gpu(0), gpu(1))
    with pytest.raises(RuntimeError, match="diverged"), open_telemetry(two_towers()):
        assert library.users == 1
        assert energy_joules(CUDA[:2]) == 14  # opened within itself
        assert library.users == 1
        raise RuntimeError("diverged")


class LostAfter(dict):
    """The errors of a GPU that falls off the bus after so many readings of its state."""

    def __init__(self, readings: int) -> None:
        self.left = readings

    def get(self, name: str, default: int | None = None) -> int | None:
        self.left -= name == STATE["utilization"]
        return GPU_IS_LOST if self.left < 0 else default


def trained_lines(folder: Path, *overrides: str) -> list[dict]:
    kernels = [f"network.layers.conv{n}.kernels=4" for n in range(1, 6)]
    units = [f"network.layers.fc{n}.units=8" for n in (6, 7)]
    recipe = ["recipe.epochs=1", "recipe.batch_size=256", "device=cpu"]
    train(compose("train", [f"run_dir={folder}", *kernels, *units, *recipe, *overrides]))
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_without_a_driver_says_so_once_and_trains_on(monkeypatch, tmp_path, capsys, one_thread):
    install(monkeypatch, None)
    *lines, validation = trained_lines(tmp_path / "run")
    assert len(lines) == 5 and validation["kind"] == "validation"
    assert all(line.keys() == {"kind", "step", "epoch", "loss", "learning_rate", "images_per_second"} for line in lines)
    for text in (capsys.readouterr().err, (tmp_path / "run" / "train.log").read_text()):
        assert text.count(f"NVML       no NVIDIA driver found (NVML Shared Library Not Found); {WITHOUT}\n") == 1
        assert text.count("NVIDIA") == text.count("utilization") == 1


def test_every_training_line_has_the_towers_numbers_until_their_gpu_is_lost(
    machine, monkeypatch, tmp_path, capsys, one_thread
):
    machine(gpu(0), gpu(1, celsius=66, errors=LostAfter(readings=3)), peer=PEERS)
    monkeypatch.setattr(Placement, "replica_devices", {0: CUDA[0], 1: CUDA[1]})
    monkeypatch.setattr("alexnet_mp.parallel.telemetry.READING_LASTS_SECONDS", 0)
    *lines, validation = trained_lines(tmp_path / "run")
    assert [line.get("tower1_gpu_temperature_celsius") for line in lines] == [66, 66, 66, None, None]
    assert all(line["tower0_gpu_utilization"] == 0.37 for line in lines)
    assert not any("gpu" in key for key in validation)
    said = capsys.readouterr().err
    assert "NVML       driver 570.86.15\n           tower 0: NVIDIA Test 0" in said
    assert said.count("stopped answering") == 1
