"""NVML's answers and refusals, through the real pynvml against a library of C functions that need no GPU."""

import json
import logging

import pytest
import torch

from alexnet_mp.common.gpu import energy_joules, find_gpu, open_nvml, read
from alexnet_mp.parallel.placement import Placement
from alexnet_mp.parallel.telemetry import TowerReadings, open_telemetry
from tests.support.nvml_library import (
    CUDA,
    DEVICE_FUNCTIONS,
    GPU_IS_LOST,
    NOT_SUPPORTED,
    PEERS,
    STATE,
    UUID,
    FakeGpu,
    gpu,
    install,
    metrics,
    two_towers,
    words,
)


def test_a_reading_of_a_gpu_is_what_the_library_filled_in(machine):
    machine(gpu(0))
    with open_nvml() as version:
        found = find_gpu(CUDA[0])
        assert version == "570.86.15" and found and found.pci() == (0, 0x10, 0)
        assert read(found).power_watts == 250.5
        assert find_gpu(torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"milliwatts": 0}, {"power_watts": 0}),
        ({"milliwatts": 999}, {"power_watts": 0.999}),
        ({"milliwatts": 1_199_875}, {"power_watts": 1199.875}),
        ({"memory": (2**63, 0, 2**63)}, {"memory_bytes": 2**63}),
        ({"memory": (5, 5, 0)}, {"memory_bytes": 0}),
        ({"percent": 0}, {"utilization": 0}),
        ({"percent": 100}, {"utilization": 1}),
        ({"percent": 7}, {"utilization": 0.07}),
        ({"celsius": -5}, {"temperature_celsius": -5}),
        ({"celsius": 0}, {"temperature_celsius": 0}),
        # The driver's word for "not available": all bits set. And more than all of the time.
        ({"milliwatts": 2**32 - 1}, {"power_watts": None}),
        ({"memory": (2**64 - 1,) * 3}, {"memory_bytes": None}),
        ({"percent": 2**32 - 1}, {"utilization": None}),
        ({"percent": 101}, {"utilization": None}),
    ],
)
def test_nvmls_units_become_watts_bytes_fractions_and_degrees(machine, answers, expected):
    machine(gpu(0, **answers))
    found = metrics(Placement("simulated", 1, {0: CUDA[0]}))
    usual = {"utilization": 0.37, "memory_bytes": 2**30, "power_watts": 250.5, "temperature_celsius": 41}
    told = {name: value for name, value in {**usual, **expected}.items() if value is not None}
    assert found == {f"tower0_gpu_{name}": value for name, value in told.items()}
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("absent", STATE)
def test_a_field_that_is_not_supported_is_absent_and_the_others_are_there(machine, absent):
    errors = {STATE[absent]: NOT_SUPPORTED, "nvmlDeviceGetTemperature": NOT_SUPPORTED}
    machine(gpu(0, errors=errors), gpu(1))
    found = metrics(two_towers())
    assert found.keys() == {f"tower{t}_gpu_{name}" for t in (0, 1) for name in STATE} - {f"tower0_gpu_{absent}"}


def test_an_older_driver_tells_its_temperature_by_the_older_function(machine):
    machine(gpu(0), missing=("nvmlDeviceGetTemperatureV",))
    assert metrics(Placement("simulated", 1, {0: CUDA[0]}))["tower0_gpu_temperature_celsius"] == 41


@pytest.mark.parametrize("code", [*range(1, 31), 999, 4321])
def test_no_error_of_any_function_stops_a_run(machine, code):
    for name in DEVICE_FUNCTIONS:
        machine(gpu(0, errors={name: code}), gpu(1), peer=PEERS)
        with open_telemetry(two_towers()) as telemetry:
            assert telemetry.words.startswith("driver 570.86.15\ntower 0: ")
            assert telemetry.metrics()["tower1_gpu_temperature_celsius"] == 41
        assert energy_joules(CUDA[:2]) in (14.0, None)


def test_no_missing_function_stops_a_run(machine):
    for name in (*DEVICE_FUNCTIONS, "nvmlSystemGetDriverVersion"):
        machine(gpu(0), gpu(1), peer=PEERS, missing=(name,))
        with open_telemetry(two_towers()) as telemetry:
            assert telemetry.words.startswith("driver ")
            telemetry.metrics()


def test_a_name_that_is_not_text_does_not_stop_a_run(machine):
    machine(FakeGpu(f"{UUID}0", name="\udcff\udcfe"))
    assert words(Placement("simulated", 1, {0: CUDA[0]}))[1].startswith("tower 0: unnamed GPU")


def test_gpus_are_asked_at_most_once_a_second(machine):
    library, now = machine(gpu(0)), [100.0]
    with open_nvml():
        found = find_gpu(CUDA[0])
        assert found
        readings = TowerReadings({0: found}, clock=lambda: now[0])
        library.calls.clear()
        assert readings()["tower0_gpu_power_watts"] == 250.5
        library.gpus[0].milliwatts = 300_000
        now[0] += 0.99
        assert readings()["tower0_gpu_power_watts"] == 250.5
        assert library.calls["nvmlDeviceGetPowerUsage"] == 1
        now[0] += 0.02
        assert readings()["tower0_gpu_power_watts"] == 300


def test_a_gpu_lost_in_the_middle_is_said_once_and_the_other_goes_on(machine, caplog, monkeypatch):
    library, now = machine(gpu(0), gpu(1)), [0.0]
    monkeypatch.setattr(logging.getLogger("alexnet_mp"), "propagate", True)
    with open_nvml():
        gpus = {tower: found for tower in (0, 1) if (found := find_gpu(CUDA[tower]))}
        readings = TowerReadings(gpus, clock=lambda: now[0])
        assert len(readings()) == 8
        library.gpus[1].errors = dict.fromkeys(DEVICE_FUNCTIONS, GPU_IS_LOST)
        for _ in range(3):
            now[0] += 10
            assert readings().keys() == {f"tower0_gpu_{name}" for name in STATE}
    assert [record.message for record in caplog.records] == [
        "NVML: tower 1's GPU has stopped answering; metrics go without its numbers"
    ]


def test_energy_is_the_sum_over_distinct_gpus_in_joules(machine):
    machine(gpu(0, millijoules=1_234_567), gpu(1, millijoules=2**52 + 1), gpu(2))
    assert energy_joules([CUDA[0]]) == 1234.567
    assert energy_joules([CUDA[1], CUDA[0], CUDA[1]]) == (2**52 + 1 + 1_234_567) / 1000


def test_energy_is_not_told_unless_every_device_counts_it(machine, monkeypatch):
    machine(
        gpu(0), gpu(1, errors={"nvmlDeviceGetTotalEnergyConsumption": NOT_SUPPORTED}), gpu(2, millijoules=2**64 - 1)
    )
    assert energy_joules([CUDA[0], CUDA[1]]) is None
    assert energy_joules([CUDA[2]]) is None
    assert energy_joules([CUDA[0], torch.device("cpu")]) is None
    assert energy_joules([]) is None
    install(monkeypatch, None)
    assert energy_joules([CUDA[0]]) is None
