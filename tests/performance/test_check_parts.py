"""The parts of `launch/check.py`, each by itself; what needs a GPU by stand-ins for what PyTorch says of one."""

import json
import signal
import subprocess
import warnings
import weakref
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch

from alexnet_mp.common.cli import compose
from alexnet_mp.errors import PeerLost
from alexnet_mp.parallel.links import LocalLink
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.parallel.placement import Placement
from alexnet_mp.parallel.telemetry import Telemetry
from alexnet_mp.performance.machine_check import child_runs, on_gpus, run, throughput
from alexnet_mp.performance.machine_check.link import LoadedLink, under_load
from alexnet_mp.performance.machine_check.settings import Check, CheckResult, parse_check_settings
from tests.support.browser import browser_program, opened_page
from tests.support.processes import CHECKOUT, run_script, torchrun

DEVICES = {tower: torch.device("cpu", tower) for tower in range(2)}
KERNELS = {"conv1": 4, "conv2": 8, "conv3": 8, "conv4": 8, "conv5": 8}
NARROW = [f"network.layers.{layer}.kernels={kernels}" for layer, kernels in KERNELS.items()]


def check_of(*overrides: str, link: LocalLink | None = None, placement: Placement | None = None) -> Check:
    asked = parse_check_settings(compose("check", ["device=cpu", "batch_size=4", "rounds=2", *NARROW, *overrides]))
    placement = placement or Placement("two_devices", 2, DEVICES)
    return Check(asked, Mesh(placement, None), link or LocalLink(list(DEVICES.values())))


class CorruptsLater(LocalLink):
    """Carries every bit at first, and from some copy on one too few."""

    copies = 0

    def _copy_directly(self, parcel, device):
        copy = super()._copy_directly(parcel, device)
        self.copies += 1
        if self.copies == 100:
            copy.view(torch.int32).bitwise_xor_(1)
        return copy


def test_a_bit_that_changes_late_is_found_by_repetition():
    link = CorruptsLater(list(DEVICES.values()))
    (early,) = under_load(check_of("repetitions=5", link=link))  # of seven passages and two towers
    assert early.result == "pass" and early.numbers == {"repetitions": 5, "differing_values": 0}
    (late,) = under_load(check_of("repetitions=5", link=link))
    assert late.result == "fail" and late.numbers["differing_values"] > 0 and "link=host" in late.what_to_do


def test_a_link_under_load_gets_copies_that_nobody_else_holds():
    sent: list[torch.Tensor] = []

    class Notes(LocalLink):
        def post(self, outgoing, crossing, direction):
            sent.extend(each for parcels in outgoing for each in parcels)
            return super().post(outgoing, crossing, direction)

    parcels = [[torch.ones(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)], [torch.zeros(2, 3, 4, 4)]]
    pending = LoadedLink(Notes(list(DEVICES.values())), list(DEVICES.values())).post(parcels, "conv3", "forward")
    assert [each.stride() for each in sent] == [parcel.stride() for (parcel,) in parcels]
    copies = [weakref.ref(each) for each in sent]
    sent.clear()
    assert [copy() for copy in copies] == [None, None]
    (to_first,), (to_second,) = pending()
    assert torch.equal(to_first, parcels[1][0]) and torch.equal(to_second, parcels[0][0])


def test_throughput_has_a_row_for_every_batch_and_precision_and_reasons_for_the_rest(monkeypatch):
    monkeypatch.setattr(throughput, "missing_compiler", lambda device: "there is no C++ compiler")
    monkeypatch.setattr(throughput, "SECONDS", 0.0)
    found = {each.name: each for each in throughput.throughput_results(check_of("batch_sizes=[2,3]"))}
    assert {name: each.result for name, each in found.items()} == {
        "images/s, tf32": "not possible here",
        "images/s, compiled": "not possible here",
        **{f"images/s, batch {n}, {kind}": "measured" for n in (2, 3) for kind in ("float32", "bf16")},
    }
    assert all(each.numbers["images_per_second"] > 0 for each in found.values() if each.result == "measured")


def test_throughput_says_what_does_not_fit_and_goes_on(monkeypatch):
    def no_memory(train_step, images, labels, steps):
        if len(labels[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [0.5], []

    monkeypatch.setattr(throughput, "missing_compiler", lambda device: None)
    monkeypatch.setattr(throughput, "train_steps", no_memory)
    found = {each.name: each for each in throughput.throughput_results(check_of("batch_sizes=[3,2]"))}
    assert "does not fit" in found["images/s, batch 3, bf16, compiled"].found
    # Two steps of two images in 0.5 s: the clock of `no_memory` says 0.5 s for one step and for both.
    assert found["images/s, batch 2, float32, compiled"].numbers == {"images_per_second": 2 * 2 / 0.5}


class WaitsInside(LocalLink):
    """Its crossings make the host wait, as CUDA would warn of it."""

    def post(self, outgoing, crossing, direction):
        if (crossing, direction) == ("fc6", "forward"):
            warnings.warn("called a synchronizing CUDA operation (Triggered internally at ...)", stacklevel=1)
        return super().post(outgoing, crossing, direction)


@pytest.fixture
def profiled(monkeypatch) -> list[str]:
    """As on GPUs: what the profiler tells; returns the modes that were set to find synchronizations."""

    def event(key: str, times: int, device: str, micro: float, names_a_span: bool = False) -> SimpleNamespace:
        where = SimpleNamespace(name=device)
        return SimpleNamespace(
            key=key, count=times, device_type=where, self_device_time_total=micro, is_user_annotation=names_a_span
        )

    events = [
        event("aten::conv2d", 5, "CPU", 900.0),
        event("cudaLaunchKernel", 200, "CPU", 0.0),
        event("cuLaunchKernelEx", 12, "CPU", 0.0),
        event("void cudnn::kernel", 5, "CUDA", 1500.0),
        event("Memcpy PtoP", 8, "CUDA", 500.0),
        event("Optimizer.step#PaperSGD.step", 1, "CUDA", 700.0, names_a_span=True),
    ]

    class Profile:
        def __init__(self, activities) -> None: ...
        def __enter__(self):
            return SimpleNamespace(key_averages=lambda: events)

        def __exit__(self, *_) -> None: ...

    modes: list[str] = []
    monkeypatch.setattr(on_gpus, "profile", Profile)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    return modes


def test_a_step_on_gpus_says_launches_times_and_that_nothing_waits(profiled):
    waits, times = on_gpus.step_on_gpus(check_of())
    assert waits.result == "pass" and waits.numbers == {"synchronizations": 0}
    assert times.numbers["launches"] == 212 and times.numbers["device_seconds"] == pytest.approx(2e-3)
    assert times.numbers["host_seconds"] > 0 and profiled == ["warn", "default"]


@pytest.mark.filterwarnings("ignore:called a synchronizing")
def test_what_makes_the_host_wait_fails_with_its_place(profiled):
    waits, _ = on_gpus.step_on_gpus(check_of(link=WaitsInside(list(DEVICES.values()))))
    assert waits.result == "fail" and "test_check_parts.py:" in waits.found and waits.numbers == {"synchronizations": 1}
    assert profiled == ["warn", "default"]


@pytest.mark.parametrize(("late", "result"), [(1.0, "pass"), (3.5, "fail"), (None, "fail")])
def test_a_stall_has_to_end_at_the_time_out(monkeypatch, late, result):
    clock = iter([10.0, 10.0 + (late or 0)])

    def wait(device, seconds):
        if late is not None:
            raise PeerLost(f"{device} did not finish its work within {seconds:g} s")

    monkeypatch.setattr(on_gpus, "_SIDE", 2)
    ticks = count()
    monkeypatch.setattr(on_gpus, "now", lambda devices: float(next(ticks)))
    monkeypatch.setattr(on_gpus, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(on_gpus, "wait_with_timeout", wait)
    (found,) = on_gpus.stall_result(check_of())
    assert found.result == result


@pytest.mark.parametrize(
    ("code", "said", "result"),
    [
        (0, "a loss", "pass"),
        (1, "CSAN detected a possible data race on tensor with data pointer 140", "fail"),
        (1, "No GPU", "fail"),
    ],
)
def test_the_sanitizer_watches_a_step_of_one_process(monkeypatch, code, said, result):
    started = []

    def popen(command, stdout, stderr, env):
        started.append((command, env))
        stdout.write(said.encode())
        return SimpleNamespace(wait=lambda seconds=None: code, kill=lambda: None)

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    (found,) = child_runs.sanitizer_results(check_of())
    ((command, environment),) = started
    assert found.result == result and ((said in found.what_to_do) == (result == "fail"))
    assert {"dry_run=true", "network=small", "device=cuda"} <= set(command)
    assert environment["TORCH_CUDA_SANITIZER"] == "1" and environment["WORLD_SIZE"] == "1"
    assert "TORCHELASTIC_RUN_ID" not in environment


KILLED, LOST = -signal.SIGKILL, 1


@pytest.mark.parametrize(
    ("killed", "resumed", "steps", "log", "problem"),
    [
        ([KILLED, LOST], [0, 0], [1, 2, 3], "going on from step-000000001", ""),
        ([0, 0], [0, 0], [1, 2, 3], "going on", "was to be killed"),
        ([KILLED, KILLED], [0, 0], [1, 2, 3], "going on", "was to be killed"),  # it had not noticed, and was ended
        ([KILLED, LOST], [0, 1], [1, 2, 3], "going on", "ended with exit codes [0, 1]"),
        ([KILLED, LOST], [0, 0], [1, 2, 3], "placement  distributed", "did not go on"),
        ([KILLED, LOST], [0, 0], [1, 3], "going on", "did not go on from its checkpoint: steps [1, 3]"),
    ],
)
def test_a_kill_has_to_lose_nothing(tmp_path, killed, resumed, steps, log, problem):
    (tmp_path / "log-0").write_text("its last words")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train.log").write_text(log)
    lines = [{"kind": "train", "step": step} for step in steps] + [{"kind": "validation", "step": 3}]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = child_runs._problem(tmp_path, killed, resumed)
    assert problem in found and bool(found) == bool(problem) == ("its last words" in found)


def test_nvml_readings_are_numbers_of_the_check():
    check = check_of()
    check.telemetry = Telemetry("driver 999\ntower 0: an abacus", lambda: {"tower0_gpu_power_watts": 71.5})
    (found,) = run.PARTS["NVML"][0](check)
    assert found.result == "measured" and found.numbers == {"tower0_gpu_power_watts": 71.5}
    assert found.found == "driver 999; tower 0: an abacus; tower0_gpu_power_watts 71.5"


def page_of(folder: Path, name: str) -> Path:
    """A page with a failure, in which a name is hostile."""
    results = [
        CheckResult("link", "pass", "14 transfers of patterns, every bit as sent", {"transfers": 14.0}),
        CheckResult("parity: two_devices", "fail", name, {"float64_error": float("inf")}, "report it"),
        CheckResult("stalled GPU", "not possible here", "needs a GPU"),
    ]
    with patch.object(run, "device_name", lambda device: name):
        report = run._report(check_of(), results, complete=True)
    run._write(report, str(folder / "check.json"))
    return folder / "check.html"


def test_the_page_stands_alone_and_takes_names_as_text(tmp_path):
    text = page_of(tmp_path, "<script>alert(1)</script>").read_text()
    assert "Failed: parity: two_devices." in text and "<script" not in text and "&lt;script&gt;" in text
    assert not any(word in text for word in ("http:", "https:", "src=", "@import", "url("))
    assert json.loads((tmp_path / "check.json").read_text())["checks"][1]["numbers"] == {"float64_error": None}


@pytest.mark.slow
@pytest.mark.skipif(browser_program() is None, reason="no Chromium")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_shows_the_page_without_errors_or_requests(tmp_path, theme):
    path = page_of(tmp_path, "CPU (an abacus)")
    with opened_page(str(browser_program()), tmp_path / "profile") as page:
        page.open(path, 1100, theme)
        said = [event for event in page.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
        asked = [event["params"]["request"]["url"] for event in page.events if "request" in event.get("params", {})]
        assert said == [] and asked == [path.as_uri()]
        assert page.value("document.querySelectorAll('tbody tr').length") == 3
        light = page.value("getComputedStyle(document.body).backgroundColor") == "rgb(251, 250, 247)"
        assert light == (theme == "light")
        assert page.value("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_all_parts_that_a_cpu_can_make_are_made(tmp_path, processes):
    asked = ["device=cpu", "batch_size=8", "rounds=1", "repetitions=3", "batch_sizes=[8]", "timeout_seconds=300"]
    if processes == 1:
        finished = run_script("launch/check.py", asked, tmp_path)
    else:
        script = str(CHECKOUT / "launch" / "check.py")
        finished = torchrun(2, [script, *asked], tmp_path, deadline=600, PYTHONPATH=str(CHECKOUT / "src"))
    assert finished.code == 0, finished.stdout + finished.stderr
    found = {check["name"]: check for check in json.loads((tmp_path / "check.json").read_text())["checks"]}
    assert found["kill and resume"]["result"] == "pass"
    assert found["images/s, batch 8, bf16"]["numbers"]["images_per_second"] > 0
    for name in ("CUDA sanitizer", "step on GPUs", "stalled GPU"):
        assert (found[name]["result"], found[name]["found"]) == ("not possible here", "needs a GPU")
    assert (tmp_path / "check.html").exists() and list(tmp_path.glob("check-*")) == []
