"""Parts that start training in processes of their own: under PyTorch's CUDA sanitizer, and killed and started again."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alexnet_mp.performance.machine_check.settings import Check, CheckResult

_ALONE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}


def sanitizer_results(check: Check) -> list[CheckResult]:
    """One step of the network `small` on this node's GPUs, in one process; found by the main process alone."""
    if not check.mesh.placement.is_main:
        return []
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        asked = ["dry_run=true", "network=small", "device=cuda"]
        with _training(asked, log, **_ALONE, TORCH_CUDA_SANITIZER="1") as process:
            code, said = _code(process, check.settings.timeout_seconds), log.read_text("utf-8", "replace")
    races = said.count("CSAN detected")
    found = f"{races} possible data races in a step of `small`, exit code {code}"
    advice = f"report it with what was said last: {said[-2000:]}" if code or races else ""
    return [CheckResult("CUDA sanitizer", "fail" if advice else "pass", found, {"data_races": float(races)}, advice)]


def killed_and_resumed(check: Check) -> list[CheckResult]:
    """Train on digits beside this launch's processes, kill the main one once a checkpoint is there, and start again.

    Every process calls it, and gets the same.
    """
    mesh, settings, placement = check.mesh, check.settings, check.mesh.placement
    root = Path(mesh.text_from_main(tempfile.mkdtemp(prefix="check-", dir=Path.cwd()) if placement.is_main else ""))
    run = root / "run"
    asked = [f"run_dir={run}", "recipe.epochs=1", "checkpoint_steps=5", "log_every_steps=1", f"link={settings.link}"]
    asked += [f"device={'cuda' if placement.on_gpus else 'cpu'}", f"placement={placement.kind}"]
    codes: list[list[int]] = []
    try:
        for kills in (True, False):
            meeting = str(mesh.from_main(_free_port() if placement.is_main else 0))
            with _training(asked, root / f"log-{placement.launch.rank}", MASTER_PORT=meeting) as process:
                end = time.monotonic() + settings.timeout_seconds
                while kills and placement.is_main and process.poll() is None and time.monotonic() < end:
                    if any(run.glob("checkpoints/step-*")):
                        process.kill()
                    time.sleep(0.01)
                codes.append([int(code) for (code,) in mesh.gather([_code(process, settings.timeout_seconds)])])
        problem = mesh.text_from_main(_problem(root, *codes) if placement.is_main else "")
    finally:
        if placement.is_main:
            shutil.rmtree(root, ignore_errors=True)
    found = problem or "killed after its first checkpoint, started again, complete; every step is there once"
    return [CheckResult("kill and resume", "fail" if problem else "pass", found)]


def _problem(root: Path, killed: list[int], resumed: list[int]) -> str:
    """What went wrong with the run in `root`, by the exit codes of its processes; empty if nothing did."""
    run, said = root / "run", (root / "log-0").read_text("utf-8", "replace")[-2000:]
    if killed[0] != -signal.SIGKILL or any(code <= 0 for code in killed[1:]):
        return f"one process was to be killed and the others to end with an error; exit codes {killed}: {said}"
    if any(resumed):
        return f"started again, it ended with exit codes {resumed}: {said}"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    if "going on" not in (run / "train.log").read_text("utf-8") or steps != list(range(1, len(steps) + 1)):
        return f"it did not go on from its checkpoint: steps {steps}: {said}"
    return ""


@contextmanager
def _training(asked: Sequence[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that trains, in this launch's place but outside of its torchrun; at the end nothing of it is left."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC_")}
    command = [sys.executable, "-m", "alexnet_mp.commands.train", *asked]
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=kept | environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _code(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Its exit code; that of SIGKILL if it does not end in time."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _free_port() -> int:
    with socket.create_server(("", 0)) as found:
        return int(found.getsockname()[1])
