"""`launch/check.py`: what it finds on a CPU, in one process and in two, and that what is broken fails and is named."""

import json
import math
import os
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist

import alexnet_mp.parallel.mesh
from alexnet_mp.common.cli import compose
from alexnet_mp.errors import ConfigurationError, LinkError
from alexnet_mp.parallel.links import Link, LocalLink, ProcessLink
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.parallel.placement import Placement
from alexnet_mp.performance.machine_check import link as link_check
from alexnet_mp.performance.machine_check import run
from alexnet_mp.performance.machine_check.parity import parity_results
from alexnet_mp.performance.machine_check.settings import Check, CheckSettings, parse_check_settings
from tests.support.processes import CHECKOUT, as_under_torchrun, run_processes, run_script, torchrun

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


def report(folder: Path, name: str = "check.json") -> dict:
    return json.loads((folder / name).read_text(), parse_constant=pytest.fail)


def results(found: dict) -> dict[str, str]:
    return {check["name"]: check["result"] for check in found["checks"]}


def check_of(found: dict, name: str) -> dict:
    (check,) = [check for check in found["checks"] if check["name"] == name]
    return check


def settings(*overrides: str) -> CheckSettings:
    return parse_check_settings(compose("check", [*QUICK, *overrides]))


def check_with(link: Link | None, placement: Placement = TWO_DEVICES, *overrides: str) -> Check:
    return Check(settings(*overrides), Mesh(placement, None), link)


@pytest.fixture
def two_devices(monkeypatch, tmp_path):
    """Run the checks in this process as if it had two devices, the towers on cpu:0 and cpu:1."""

    def checked(link: type[LocalLink] = LocalLink, *overrides: str) -> tuple[bool, dict]:
        monkeypatch.setattr(run, "choose_placement", lambda *arguments, **link: TWO_DEVICES)
        monkeypatch.setattr(alexnet_mp.parallel.mesh, "LocalLink", link)
        monkeypatch.chdir(tmp_path)
        with patch.dict(os.environ):
            passed = run.run_checks(compose("check", [*QUICK, *overrides]))
        return passed, report(tmp_path)

    return checked


def test_one_process_on_a_cpu_checks_its_towers_and_says_what_is_not_possible(tmp_path):
    finished = run_script("launch/check.py", QUICK, tmp_path)
    assert finished.code == 0, finished.stderr
    found = report(tmp_path)
    assert found["passed"] and found["complete"] and found["placement"].startswith("simulated")
    assert results(found) == {
        "link": "not possible here",
        "link under load": "not possible here",
        "parity: one device": "pass",
        "parity: two_devices": "not possible here",
        "parity: distributed": "not possible here",
        "crossings": "not possible here",
        "step": "pass",
        "hidden": "not possible here",
    }
    assert 0 < check_of(found, "parity: one device")["numbers"]["float64_error"] < 1e-10
    assert check_of(found, "step")["numbers"]["crossing_bytes"] == STEP_BYTES
    assert found["versions"]["torch"] == torch.__version__ and found["machine"]["devices"][0].startswith("CPU")
    for check in found["checks"]:
        assert f"{check['name']:<19}  {check['result']:<17}  {check['found']}" in finished.stdout.splitlines()


def test_two_processes_check_their_link_and_leave_one_report(tmp_path):
    arguments = [str(CHECKOUT / "launch" / "check.py"), *QUICK, "json=two.json"]
    finished = torchrun(2, arguments, tmp_path, PYTHONPATH=str(CHECKOUT / "src"))
    assert finished.code == 0, finished.stderr
    found = report(tmp_path, "two.json")
    assert found["passed"] and found["world_size"] == 2
    assert finished.stdout.count("parity: distributed") == 1
    assert results(found) == {
        "link": "pass",
        "link under load": "pass",
        "parity: one device": "pass",
        "parity: two_devices": "not possible here",
        "parity: distributed": "pass",
        **dict.fromkeys(CROSSINGS, "measured"),
        "latency": "measured",
        "step": "pass",
        "hidden": "measured",
    }
    # One thread each: the same operations on the same numbers.
    numbers = check_of(found, "parity: distributed")["numbers"]
    assert numbers["float64_error"] == numbers["float32_error"] == numbers["bfloat16_error"] == 0
    assert sum(check_of(found, name)["numbers"]["bytes"] for name in CROSSINGS) == STEP_BYTES
    assert all(check_of(found, name)["numbers"]["bytes_per_second"] > 0 for name in CROSSINGS)
    assert 0 <= check_of(found, "hidden")["numbers"]["hidden"] <= 1


def test_two_devices_are_compared_with_one(two_devices, one_thread):
    passed, found = two_devices()
    assert passed
    assert {name for name, result in results(found).items() if result == "pass"} == {
        *("link", "link under load", "parity: one device", "parity: two_devices", "step")
    }
    assert check_of(found, "parity: two_devices")["numbers"]["float64_error"] == 0
    assert results(found)["hidden"] == "measured"


class CorruptDirectly(LocalLink):
    """Spoils one value of every direct copy."""

    def _copy_directly(self, parcel, device):
        copy = super()._copy_directly(parcel, device)
        copy[(0,) * copy.ndim] = 12345.0
        return copy


class CorruptAnyway(CorruptDirectly):
    """Spoils one value of every copy, through host memory too."""

    def _copy(self, parcel, device):
        copy = super()._copy(parcel, device)
        return copy if copy.device == parcel.device == device else copy.index_fill(0, torch.tensor([0]), math.nan)


class SlightlyWrong(LocalLink):
    """Is right for the patterns, which are float32, and rounds what is float64."""

    def _copy_directly(self, parcel, device):
        return super()._copy_directly(parcel.float(), device).to(parcel.dtype)


class CountsTwice(LocalLink):
    """Sends each float once, and more bytes than the table says."""

    def post(self, outgoing, crossing, direction):
        self.traffic.add(0, crossing, direction, outgoing[0])
        return super().post(outgoing, crossing, direction)


def test_corrupt_direct_copies_fail_and_the_rest_goes_through_host_memory(two_devices):
    passed, found = two_devices(CorruptDirectly)
    assert not passed and not found["passed"]
    assert [name for name, result in results(found).items() if result == "fail"] == ["link"]
    link = check_of(found, "link")
    assert "conv3 forward from tower 1 (rank 0) to tower 0 (rank 0): 1 of" in link["found"]
    assert "through host memory: right" in link["found"]
    assert link["numbers"] == {"transfers": 14, "corrupt_transfers": 14, "corrupt_transfers_through_host": 0}
    assert link["what_to_do"]


def test_a_link_that_is_always_corrupt_fails_parity_too_and_the_file_stays_json(two_devices):
    passed, found = two_devices(CorruptAnyway)
    assert not passed
    assert {name for name, result in results(found).items() if result == "fail"} >= {"link", "parity: two_devices"}
    assert check_of(found, "link")["numbers"]["corrupt_transfers_through_host"] == 14
    assert check_of(found, "parity: two_devices")["numbers"]["float64_error"] is None


def test_a_difference_of_float32s_rounding_is_found_in_float64(two_devices):
    passed, found = two_devices(SlightlyWrong)
    assert not passed
    assert [name for name, result in results(found).items() if result == "fail"] == ["parity: two_devices"]
    numbers = check_of(found, "parity: two_devices")["numbers"]
    assert 1e-10 < numbers["float64_error"] < 1e-3 and numbers["float32_error"] == 0


def test_a_step_that_sends_other_bytes_than_the_table_fails(two_devices):
    passed, found = two_devices(CountsTwice)
    assert not passed
    assert (
        f"sent {2 * STEP_BYTES:,} bytes, and the network table says {STEP_BYTES:,}" in check_of(found, "step")["found"]
    )


def test_a_failed_check_ends_the_command_with_code_1(tmp_path):
    finished = run_script("launch/check.py", [*QUICK, "network.layers.fc8.std=1e38"], tmp_path)
    assert finished.code == 1
    assert [name for name, result in results(report(tmp_path)).items() if result == "fail"] == ["step"]
    assert "a loss is not finite" in finished.stdout


def test_a_part_that_breaks_off_has_failed_and_the_next_ones_are_made(monkeypatch, tmp_path):
    def broken(check):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setitem(run.PARTS, "parity", (broken, lambda check: None))
    with patch.dict(os.environ):
        assert not run.run_checks(compose("check", [*QUICK, f"json={tmp_path}/check.json"]))
    found = report(tmp_path)
    assert results(found)["parity"] == "fail" and results(found)["step"] == "pass" and not found["passed"]
    assert "illegal memory access" in check_of(found, "parity")["found"]


def test_what_was_found_before_the_command_ends_is_in_the_file_which_is_not_complete(monkeypatch, tmp_path):
    def interrupted(check):
        raise KeyboardInterrupt

    monkeypatch.setitem(run.PARTS, "step", (interrupted, lambda check: None))
    with patch.dict(os.environ), pytest.raises(KeyboardInterrupt):
        run.run_checks(compose("check", [*QUICK, f"json={tmp_path}/check.json", "parts=[link,step]"]))
    found = report(tmp_path)
    assert results(found) == {"link": "not possible here"} and not found["passed"] and not found["complete"]
    assert "Ended before all parts were made." in (tmp_path / "check.html").read_text()


def test_what_a_link_test_that_breaks_off_leaves_is_not_used(monkeypatch, two_devices):
    def hangs(*arguments):
        raise LinkError("copies between GPUs hang")

    monkeypatch.setattr(link_check, "examined_link", hangs)
    passed, found = two_devices()
    assert not passed
    assert results(found) == {"link": "fail", **dict.fromkeys(list(run.PARTS)[1:5], "not possible here")}
    assert check_of(found, "step")["found"] == "the test of the link did not come to its end"


def check_that_one_process_leaves(path: str) -> bool:
    def leaves(check):
        if dist.get_rank() == 1:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return []

    parts = {"parity": (leaves, lambda check: None), "step": run.PARTS["step"]}
    with as_under_torchrun(), patch.object(run, "keep_large_blocks"), patch.object(run, "PARTS", parts):
        return run.run_checks(compose("check", [*QUICK, f"json={path}", "parts=null"]))


def test_where_processes_part_the_rest_is_not_made(tmp_path):
    assert run_processes(2, check_that_one_process_leaves, str(tmp_path / "check.json")) == [False, False]
    found = report(tmp_path)
    assert results(found) == {"parity": "fail", "step": "not possible here"}
    assert check_of(found, "step")["found"].startswith("since parity the processes")


class CorruptProcessLink(ProcessLink):
    """Spoils one value of what reaches tower 1 in fc7's forward pass."""

    def post(self, outgoing, crossing, direction):
        arrive = super().post(outgoing, crossing, direction)

        def corrupted():
            parcels = arrive()
            if self.tower == 1 and (crossing, direction) == ("fc7", "forward"):
                parcels[0][0][0, 0] = 12345.0
            return parcels

        return corrupted


def check_over_a_corrupt_link(path: str, link: str) -> bool:
    with (
        as_under_torchrun(),
        patch.object(run, "keep_large_blocks"),
        patch.object(alexnet_mp.parallel.mesh, "ProcessLink", CorruptProcessLink),
    ):
        return run.run_checks(compose("check", [*QUICK, f"json={path}", f"link={link}"]))


def test_every_process_fails_where_the_link_between_them_is_corrupt(tmp_path):
    assert run_processes(2, check_over_a_corrupt_link, str(tmp_path / "check.json"), "direct") == [False, False]
    found = report(tmp_path)
    assert {"link", "link under load", "parity: distributed"} <= {
        name for name, result in results(found).items() if result == "fail"
    }
    assert "fc7 forward from tower 0 (rank 0) to tower 1 (rank 1): 1 of 2,048" in check_of(found, "link")["found"]
    # Wrong in both processes alike, because logits are summed over the towers; the first names its own.
    assert "logits of tower 0" in check_of(found, "parity: distributed")["found"]


def test_between_processes_the_rest_goes_through_host_memory_if_it_may(tmp_path):
    assert run_processes(2, check_over_a_corrupt_link, str(tmp_path / "check.json"), "auto") == [False, False]
    found = report(tmp_path)
    assert [name for name, result in results(found).items() if result == "fail"] == ["link"]
    assert "through host memory: right" in check_of(found, "link")["found"]


@pytest.mark.parametrize("overrides", [("network=cifar10_batchnorm",), ("network=cifar10_lrn",), ("towers=4",)])
def test_other_networks_agree_with_one_without_towers(overrides):
    of = settings(*overrides)
    placement = Placement(
        "two_devices", of.network.towers, {t: torch.device(f"cpu:{t}") for t in range(of.network.towers)}
    )
    checks = parity_results(Check(of, Mesh(placement, None), LocalLink(list(placement.devices.values()))))
    assert [check.result for check in checks] == ["pass", "pass", "not possible here"]


def test_a_network_of_one_tower_has_no_link_and_agrees_with_a_plain_one(tmp_path):
    finished = run_script("launch/check.py", [*QUICK, "towers=1"], tmp_path)
    assert finished.code == 0, finished.stderr
    found = report(tmp_path)
    assert [name for name, result in results(found).items() if result == "pass"] == ["parity: one device", "step"]
    assert "one tower" in check_of(found, "link")["found"]


def test_parity_leaves_torchs_settings_as_they_were():
    def state() -> tuple:
        return (
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.deterministic,
        )

    before = state()
    parity_results(check_with(None, Placement("simulated", 1, {0: torch.device("cpu")}), "towers=1"))
    assert state() == before


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("batch_size=0", "batch_size is 0, must be positive"),
        ("rounds=0", "rounds is 0"),
        ("timeout_seconds=inf", "timeout_seconds is inf, must be at most 1e9"),
        ("json=nowhere/check.json", "must lie in a folder that exists"),
        ("towers=3", "3 towers do not divide"),
        ("steps=3", "unknown key 'steps'"),
    ],
)
def test_wrong_settings_are_refused_with_the_key(override, words):
    with pytest.raises(ConfigurationError, match=words):
        settings(override)
