"""Several replicas and several nodes: the same metrics as one, by either rule of scaling, and the same run."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from alexnet_mp.checkpoint.files import load_checkpoint
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.training import summary as summaries
from tests.support.processes import Finished, agent, free_port, run_together
from tests.training.test_train import NARROW, TRAIN, in_this_process, in_workers, metrics, summary

# An epoch of 1,437 images in 7 steps; neither 192 nor its half divides the 360 that are validated.
STEPS, BATCH = 7, 192
SHORT = (*NARROW, "recipe.epochs=1", f"recipe.batch_size={BATCH}", "precision=float64")
KEYS = ("epoch", "loss", "learning_rate", "top1_error", "top5_error")


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """One process, so one replica."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert in_this_process(folder, *SHORT).code == 0
    return folder


@pytest.fixture(scope="module")
def one_agent(tmp_path_factory) -> tuple[Path, Finished]:
    """Two replicas of two towers, in four processes of one node."""
    folder = tmp_path_factory.mktemp("one") / "run"
    return folder, in_workers(4, folder, *SHORT)


def assert_same_metrics(folder: Path, expected: Path) -> None:
    """To 1e-9: replicas add up other partial sums than one."""
    found, wanted = metrics(folder, *KEYS), metrics(expected, *KEYS)
    assert len(found) == len(wanted) == STEPS + 1
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours == tuple(pytest.approx(v, rel=1e-9) if isinstance(v, float) else v for v in theirs)
    for key in ("top1_error", "top5_error", "steps", "batch_size", "crossing_bytes_per_step"):
        assert summary(folder)[key] == summary(expected)[key], key
    assert summary(folder)["images_per_second"] * summary(folder)["seconds"] == pytest.approx(STEPS * BATCH)


def test_four_processes_train_two_replicas_as_one(one_agent, alone):
    four, finished = one_agent
    assert finished.code == 0, finished.stderr
    assert "192 images on 2 replicas, 96 each; batch_scaling=fixed: the recipe's" in finished.stderr
    assert (summary(four)["replicas"], summary(four)["world_size"]) == (2, 4)
    assert summary(four)["command"].startswith("torchrun --nproc-per-node=4 launch/train.py network.")
    assert_same_metrics(four, alone)


def test_two_replicas_scaled_linearly_report_what_one_does_with_twice_the_batch_and_rate(alone, tmp_path):
    # The preset has 0.02 in both kinds and, from epoch 12 on, 0.002.
    halves = ["recipe.batch_size=96", "recipe.weights.learning_rate=0.01", "recipe.biases.learning_rate=0.01"]
    two = tmp_path / "two"
    finished = in_workers(2, two, *SHORT, *halves, "placement=simulated", "batch_scaling=linear")
    assert finished.code == 0, finished.stderr
    assert "192 images on 2 replicas, 96 each; batch_scaling=linear: the recipe's 96 and its" in finished.stderr
    assert "batch 192, learning rate 0.02 (biases 0.02)" in finished.stderr
    assert (summary(two)["replicas"], summary(two)["batch_scaling"]) == (2, "linear")
    assert_same_metrics(two, alone)


@pytest.mark.parametrize(
    ("kind", "processes", "gathered"),
    [
        ("distributed", 4, [[5.0], [1.0], [2.0], [7.0]]),  # tower 0, tower 1, tower 0, tower 1
        ("simulated", 2, [[5.0, 1.0], [2.0, 7.0]]),
    ],
)
def test_the_peak_memory_of_a_tower_is_that_of_the_fullest_replica(kind, processes, gathered, monkeypatch):
    mesh = Mesh(choose_placement(kind, "cpu", 2, Launch(0, processes, 0, processes)), None)
    monkeypatch.setattr(Mesh, "gather", lambda self, mine: gathered)
    assert summaries._peak_memory_per_tower(mesh) == [5, 7]


def by_two_agents(
    folder: Path, endpoint: str, addresses: Sequence[str], prefixes: Sequence[Sequence[str]] = ((), ())
) -> list[Finished]:
    """Two replicas of two towers, a torchrun each, in working folders of their own.

    `addresses` are those at which the nodes reach each other; the commands stand after `prefixes`.
    """
    homes = [folder.parent / f"{folder.name}-node-{node}" for node in range(2)]
    for home in homes:
        home.mkdir()
    train = [TRAIN, f"run_dir={folder}", *SHORT]
    commands = [agent(2, endpoint, address, node == 0, train) for node, address in enumerate(addresses)]
    return run_together([[*before, *command] for before, command in zip(prefixes, commands, strict=True)], homes)


def assert_bit_equal(folder: Path, expected: Path) -> None:
    """Losses, rates, errors and weights of two runs."""
    assert metrics(folder, *KEYS) == metrics(expected, *KEYS)
    assert len(metrics(folder)) == STEPS + 1
    (weights, _), (wanted, _) = (
        load_checkpoint(run / "checkpoints" / summary(run)["checkpoint"]) for run in (folder, expected)
    )
    assert weights.keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in weights.items())


@pytest.mark.slow
def test_two_agents_on_loopback_train_bit_equal_to_one(one_agent, tmp_path):
    folder = tmp_path / "two"
    for finished in by_two_agents(folder, f"127.0.0.1:{free_port()}", ["127.0.0.1"] * 2):
        assert finished.code == 0, finished.stderr
    assert_bit_equal(folder, one_agent[0])
    assert (summary(folder)["replicas"], summary(folder)["world_size"]) == (2, 4)
    command = summary(folder)["command"]
    assert command.startswith("torchrun --nnodes=2 --nproc-per-node=2 --rdzv-backend=c10d --rdzv-endpoint=FIRST_NODE:")


class TwoNodes:
    """Two network namespaces joined by a virtual cable, each its own loopback device: what two nodes are to sockets."""

    def __init__(self) -> None:
        self.names = [f"anmp-{os.getpid()}-{node}" for node in range(2)]
        self.devices = [f"anmp{os.getpid() % 100_000}{node}" for node in "ab"]
        self.addresses = ["10.213.77.1", "10.213.77.2"]

    def open(self) -> None:
        for name in self.names:
            self._ip("netns", "add", name)
        self._ip("link", "add", self.devices[0], "type", "veth", "peer", "name", self.devices[1])
        for name, device, address in zip(self.names, self.devices, self.addresses, strict=True):
            self._ip("link", "set", device, "netns", name)
            self._ip("-n", name, "addr", "add", f"{address}/30", "dev", device)
            for each in ("lo", device):
                self._ip("-n", name, "link", "set", each, "up")

    def close(self) -> None:
        for name in self.names:  # its end of the cable goes with a namespace
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=20)

    def prefix(self, node: int) -> list[str]:
        """What runs a command on a node, and tells gloo which device leads to the other."""
        return ["ip", "netns", "exec", self.names[node], "env", f"GLOO_SOCKET_IFNAME={self.devices[node]}"]

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=20)


@pytest.fixture
def two_nodes() -> Iterator[TwoNodes]:
    if shutil.which("ip") is None:
        pytest.skip("iproute2 is not installed")
    nodes = TwoNodes()
    try:
        nodes.open()
        yield nodes
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    finally:
        nodes.close()


@pytest.mark.slow
def test_two_nodes_with_networks_of_their_own_train_bit_equal_to_one(one_agent, two_nodes, tmp_path):
    folder = tmp_path / "nodes"
    prefixes = [two_nodes.prefix(node) for node in range(2)]
    for finished in by_two_agents(folder, f"{two_nodes.addresses[0]}:29500", two_nodes.addresses, prefixes):
        assert finished.code == 0, finished.stderr
    assert_bit_equal(folder, one_agent[0])


KILLED_ONCE = """
import os, signal
from pathlib import Path
from alexnet_mp.commands.train import main
from alexnet_mp.training.trainer import Trainer

agree, victim, mark = Trainer._agree, {victim!r}, Path({mark!r})

def killed_once(trainer, losses, step):
    if step == 5 and os.environ["RANK"] == victim and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return agree(trainer, losses, step)

Trainer._agree = killed_once
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["1", "2"])  # on one node, and on the other
def test_a_process_killed_on_one_of_two_nodes_costs_one_restart_and_the_run_goes_on(victim, alone, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(KILLED_ONCE.format(victim=victim, mark=str(tmp_path / "killed")))
    homes = [tmp_path / f"node{node}" for node in range(2)]
    for home in homes:
        home.mkdir()
    arguments = ["--max-restarts=1", str(script), *SHORT, "checkpoint_steps=2", "timeout_seconds=20"]
    endpoint = f"127.0.0.1:{free_port()}"
    commands = [agent(2, endpoint, "127.0.0.1", node == 0, arguments) for node in range(2)]
    finished = run_together(commands, homes)
    assert [each.code for each in finished] == [0, 0], finished[0].stderr + finished[1].stderr
    assert (tmp_path / "killed").exists()
    (folder,) = tmp_path.glob("node?/runs/digits/*")  # on the node that torchrun counts first
    assert "going on   from step-000000004-unvalidated" in (folder / "train.log").read_text()
    assert_same_metrics(folder, alone)
