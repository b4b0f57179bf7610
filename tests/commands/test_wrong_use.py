"""A wrong use ends in one line that says what is wrong and what to do; exit code 2, no traceback, no hang."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import alexnet_mp
from alexnet_mp.commands import train
from tests.support.processes import CHECKOUT, Finished, run_command, torchrun

TRAIN = str(CHECKOUT / "launch" / "train.py")
PACKAGE = str(Path(alexnet_mp.__file__).parent)
LAUNCH_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID")
DEADLINE = 15  # of one process, most of which is importing torch
TORCHRUN_DEADLINE = 30  # of three or four that share the cores, and torchrun's own start and end

Refused = Callable[..., str]

pytestmark = pytest.mark.timeout(60)


def only_line(stderr: str) -> str:
    """The one line of ours in `stderr`, without its `error: `; torchrun's banner around it is not ours."""
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, stderr
    assert f'File "{PACKAGE}' not in stderr, f"a traceback of ours:\n{stderr}"
    return lines[0].removeprefix("error: ")


def assert_says(line: str, *fragments: str) -> None:
    assert [fragment for fragment in fragments if fragment not in line] == [], line


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Call the train command in this process, as on a machine without GPUs; return its one line.

    Checks that nothing else is printed, that it ends with code 2, and that no process group is joined before.
    """

    def run(*arguments: str, **environment: str) -> str:
        for name in LAUNCH_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: pytest.fail("joined a process group"))
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            train.main()
        stdout, stderr = capfd.readouterr()
        assert ended.value.code == 2, stderr
        assert stdout == ""
        line = only_line(stderr)
        assert stderr == f"error: {line}\n"
        return line

    return run


def launched(rank: int, world_size: int, local_world_size: int | None = None) -> dict[str, str]:
    """The environment variables with which torchrun starts a process."""
    local = local_world_size or world_size
    values = {
        "RANK": rank,
        "WORLD_SIZE": world_size,
        "LOCAL_RANK": rank % local,
        "LOCAL_WORLD_SIZE": local,
    }
    return {name: str(value) for name, value in values.items()}


WRONG_ARGUMENTS = {
    "unknown_network": (["network=papr"], ["papr", "paper", "original_2012", "small", "one_column", "ungrouped"]),
    "unknown_recipe": (["recipe=nosuch"], ["nosuch", "digits", "paper", "original_2012"]),
    "unknown_key": (["foo=1"], ["unknown key 'foo'", "--cfg job"]),
    "unknown_key_added": (["+foo=1"], ["unknown key 'foo'", "recipe", "placement", "run_dir"]),
    "misspelt_key_added": (["+sead=1"], ["unknown key 'sead'", "did you mean 'seed'"]),
    "unknown_nested_key": (["recipe.lr=1"], ["unknown key 'recipe.lr'", "recipe.layers"]),
    "unknown_nested_key_added": (["+recipe.lr=1"], ["unknown key 'recipe.lr'", "batch_size", "weights"]),
    "unknown_key_of_a_row": (
        ["+network.layers.conv1.color=1"],
        ["unknown key 'network.layers.conv1.color'", "kernels", "size", "reads"],
    ),
    "unknown_kind_of_row": (["network.layers.lrn1.kind=lrm"], ["network.layers.lrn1.kind", "'lrm'", "'lrn'"]),
    "word_for_a_number": (["recipe.epochs=many"], ["recipe.epochs", "whole number", "'many'"]),
    "fraction_of_a_kernel": (
        ["network.layers.conv2.kernels=1.5"],
        ["network.layers.conv2.kernels", "whole number", "1.5"],
    ),
    "two_numbers_for_an_image": (["network.image=[3,16]"], ["network.image", "3 values", "[3, 16]"]),
    "no_network": (["network=null"], ["network"]),
    "no_recipe": (["recipe=null"], ["recipe"]),
    "no_name_of_a_key": (["=3"], ["=3"]),
    # The 2 x 48 kernels of conv1 make three equal parts, the 2 x 128 of conv2 do not.
    "towers_that_do_not_divide": (["towers=3"], ["3 towers", "256 kernels", "conv2", "[1, 2, 4, 8, 16]"]),
    "no_towers": (["towers=0"], ["towers=0", "at least one"]),
    # 4 pixels: conv1 4, pool1 (4 - 3) // 2 + 1 = 1, conv2 1, and pool2 wants 3.
    "image_too_small": (["network.image=[3,4,4]"], ["pool2", "3x3", "1 px", "larger images"]),
    "negative_std": (["network.layers.conv1.std=-1"], ["network.layers.conv1.std", "-1"]),
    "negative_pad": (
        ["network.layers.conv1.pad=[-1,-1]", "network.image=[3,32,32]", "recipe.epochs=1"],
        ["network.layers.conv1.pad", "-1"],
    ),
    "more_classes_than_the_data": (["network.classes=1000"], ["1000 classes", "10", "network.classes=10"]),
    "batch_of_more_than_the_data": (["recipe.batch_size=1438"], ["recipe.batch_size=1438", "1437", "digits"]),
    "empty_batch": (["recipe.batch_size=0"], ["batch_size", "0", "positive"]),
    "two_devices_without_gpus": (["placement=two_devices"], ["2 GPUs", "sees 0", "placement=simulated"]),
    "two_devices_for_one_tower": (["placement=two_devices", "towers=1"], ["one tower", "placement=simulated"]),
    "distributed_with_one_process": (
        ["placement=distributed"],
        ["1 process", "2 towers", "torchrun --nproc-per-node=2"],
    ),
    "unknown_placement": (["placement=three_devices"], ["placement", "'three_devices'", "two_devices"]),
    "cuda_without_gpu": (["device=cuda"], ["device=cuda", "no GPU", "device=cpu"]),
    "unknown_device": (["device=tpu"], ["device", "'tpu'", "cpu", "cuda"]),
    "both_schedules": (["recipe.schedule.plateau={patience: 2}"], ["milestones", "plateau", "null"]),
    "recipe_for_another_network": (
        ["+recipe.layers.conv9.weights={learning_rate: 1, weight_decay: 0}"],
        ["'conv9'", "conv1", "fc8"],
    ),
    "no_threads": (["threads=0"], ["threads", "0", "positive"]),
    "time_out_without_end": (["timeout_seconds=inf"], ["timeout_seconds is inf", "at most 1e9"]),
    "time_out_that_is_no_number": (["timeout_seconds=nan"], ["timeout_seconds is nan", "positive"]),
    "time_out_that_no_clock_holds": (["timeout_seconds=1e18"], ["timeout_seconds is 1e+18", "at most 1e9"]),
    "checkpoints_at_no_time": (["checkpoint_minutes=nan"], ["checkpoint_minutes is nan", "positive"]),
    "color_noise_on_gray": (
        [
            "network.image=[1,28,28]",
            "recipe.augmentation.color={std: 0.1, eigenvalues: root}",
        ],
        ["color noise needs 3 channels", "the network reads 1", "recipe.augmentation.color=null"],
    ),
}


@pytest.mark.parametrize("arguments, says", WRONG_ARGUMENTS.values(), ids=WRONG_ARGUMENTS)
def test_wrong_arguments_end_in_one_line(
    arguments: list[str], says: list[str], refused: Refused, tmp_path: Path
) -> None:
    assert_says(refused(*arguments), *says)
    assert list(tmp_path.iterdir()) == [], "a refused run leaves nothing behind"


WRONG_LAUNCHES = {
    "odd_world": ([], launched(0, 3), ["3 processes", "2 towers", "multiple of 2", "torchrun --nproc-per-node=2"]),
    "pair_over_two_nodes": ([], launched(0, 2, 1), ["--nproc-per-node=1", "2 towers", "two nodes"]),
    "batch_that_replicas_do_not_divide": (
        ["recipe.batch_size=63"],
        launched(0, 4),
        ["recipe.batch_size=63", "2 replicas", "multiple", "62"],
    ),
    "two_devices_for_each_process": (
        ["placement=two_devices"],
        launched(0, 4),
        ["two_devices is for one process, and these are 4", "placement=distributed"],
    ),
    "world_size_that_is_no_number": ([], {**launched(0, 2), "WORLD_SIZE": "two"}, ["WORLD_SIZE", "two"]),
}


@pytest.mark.parametrize("arguments, environment, says", WRONG_LAUNCHES.values(), ids=WRONG_LAUNCHES)
def test_a_wrong_launch_is_found_before_any_collective(
    arguments: list[str], environment: dict[str, str], says: list[str], refused: Refused
) -> None:
    assert_says(refused(*arguments, **environment), *says)


@pytest.mark.parametrize("file", ["metrics.jsonl", "summary.json"])
def test_a_folder_that_holds_a_run_is_not_written_to(file: str, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / file).write_text("the first run's")
    assert_says(refused("run_dir=run"), str(tmp_path / "run"), "holds a run already", "another run_dir")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [file]
    assert (tmp_path / "run" / file).read_text() == "the first run's"


def test_a_run_folder_below_a_file_cannot_be_made(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_says(refused("run_dir=file/run"), str(tmp_path / "file" / "run"), "Not a directory", "another run_dir")


@pytest.mark.parametrize("flag", ["-m", "--multirun", "--multi"])
def test_multirun_inside_torchrun_is_refused_however_it_is_written(flag: str, refused: Refused) -> None:
    line = refused(flag, "towers=3,5", TORCHELASTIC_RUN_ID="none", **launched(0, 2))
    assert_says(line, "--multirun inside torchrun", "one torchrun per job")


def test_wrong_arguments_end_in_one_line_in_a_sweep_too(refused: Refused) -> None:
    assert_says(refused("--multirun", "towers=3,5"), "3 towers", "256 kernels")


def train_alone(tmp_path: Path, *arguments: str, **environment: str) -> Finished:
    return run_command([sys.executable, TRAIN, *arguments], tmp_path, DEADLINE, CUDA_VISIBLE_DEVICES="", **environment)


@pytest.mark.parametrize(
    "arguments, environment, says",
    [
        (["foo=1"], {}, ["foo"]),
        pytest.param([], launched(0, 2, 1), ["--nproc-per-node=1", "2 towers", "two nodes"], marks=pytest.mark.slow),
    ],
    ids=["unknown_key", "pair_over_two_nodes"],
)
def test_a_process_ends_with_code_2_after_the_line(
    arguments: list[str], environment: dict[str, str], says: list[str], tmp_path: Path
) -> None:
    finished = train_alone(tmp_path, *arguments, **environment)
    assert (finished.code, finished.stdout) == (2, "")
    assert_says(only_line(finished.stderr), *says)


def train_under_torchrun(processes: int, tmp_path: Path, script: str, *arguments: str) -> str:
    """Our one line, of all that torchrun and its processes print."""
    finished = torchrun(processes, [script, *arguments], tmp_path, TORCHRUN_DEADLINE, CUDA_VISIBLE_DEVICES="")
    assert finished.code == 1, "torchrun's own code, whatever its processes ended with"
    assert re.search(r"exitcode *: 2\b", finished.stderr), finished.stderr
    line = only_line(finished.stderr)
    assert finished.stderr.rstrip().splitlines()[-2] == f"  traceback : {line}", "torchrun's own box has it, at its end"
    return line


@pytest.mark.parametrize(
    "processes, arguments, says",
    [
        # Found by each process before it joins, as below where the first is late; what is said, in one process above.
        pytest.param(3, [], ["3 processes", "2 towers", "torchrun --nproc-per-node=2"], marks=pytest.mark.slow),
        pytest.param(4, ["recipe.batch_size=63"], ["recipe.batch_size=63", "2 replicas", "62"], marks=pytest.mark.slow),
        pytest.param(
            1,
            ["--multirun", "seed=0,1"],
            ["--multirun inside torchrun", "one torchrun per job"],
            marks=pytest.mark.slow,
        ),
        # Found by the first alone, when they have joined.
        (2, ["run_dir=file/run"], ["file/run", "another run_dir"]),
    ],
    ids=["odd_world", "batch_that_replicas_do_not_divide", "multirun", "run_dir_below_a_file"],
)
def test_of_several_processes_the_first_alone_says_it(
    processes: int, arguments: list[str], says: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert_says(train_under_torchrun(processes, tmp_path, TRAIN, *arguments), *says)


def test_a_process_that_torchrun_did_not_start_says_it_itself(refused: Refused) -> None:
    line = refused("towers=3", **launched(rank=1, world_size=2))
    assert_says(line, "rank 1: ", "3 towers")


START_THE_FIRST_LAST = """
import os, time
from alexnet_mp.commands.train import main
if os.environ["RANK"] == "0":
    time.sleep(3)
main()
"""


@pytest.mark.slow
def test_the_line_comes_even_where_the_first_process_is_the_last_to_find_out(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(START_THE_FIRST_LAST)
    assert_says(train_under_torchrun(2, tmp_path, str(script), "towers=4"), "2 processes", "4 towers")
