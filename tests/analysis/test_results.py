"""The page of results says what run folders hold, beside the published numbers, with the commands."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from PIL import Image

from alexnet_mp.commands import results
from alexnet_mp.common.cli import compose
from alexnet_mp.common.text import count
from alexnet_mp.parallel.launch import Launch, command_line
from tests.support.runs import evaluate, make_run


def page(out: Path, *runs: Path) -> str:
    """What the command writes of `runs`."""
    results.run(compose("results", [f"runs=[{','.join(map(str, runs))}]", f"out={out}"]))
    return (out / "results.md").read_text(encoding="utf-8")


def rows(text: str, first: str) -> list[dict[str, str]]:
    """The rows of every table whose first column is called `first`."""
    found: list[dict[str, str]] = []
    header: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("| ") else []
        if cells and header and not line.startswith("| ---") and header[0] == first:
            found.append(dict(zip(header, cells, strict=True)))
        header = (header or cells) if cells else []
    return found


def test_the_numbers_of_a_run_are_on_the_page(tmp_path: Path) -> None:
    text = page(tmp_path / "docs", make_run(tmp_path / "a"))
    assert rows(text, "seed") == [
        {
            "seed": "0",
            "top-1 error, %": "20.00",
            "top-5 error, %": "2.00",
            "top-1 error at epoch 10, %": "30.00",
            "best top-1 error, %": "15.00",
            "best epoch": "11",
            "minutes": "10.0",
            "images/s": "100",
            "commit": "0123456789",
        }
    ]
    for words in (
        "`tiny`: 2 towers, 1,234,567 parameters",
        "`quick`: 12 epochs, batch 64, float32",
        "pack packs/pictures",
        "CPU (an abacus); placement `distributed`, 2 processes of 1 CPU thread",
        "torch 9.9",
        "```\ntorchrun --nproc-per-node=2 launch/train.py experiment=cifar10_lrn seed=0\n```",
    ):
        assert words in text, words
    assert "rebuilt" not in text
    assert "median" not in text


def test_the_page_says_which_command_makes_it_again(tmp_path: Path) -> None:
    run, out = make_run(tmp_path / "a"), tmp_path / "docs"
    text = page(out, run)
    title, command = text.split("\n\n")[:2]
    assert title == "# Results"
    (written,) = re.findall(r"`(.*)`", command)
    program, script, *overrides = shlex.split(written)
    assert (program, script) == ("python", "launch/results.py")
    results.run(compose("results", overrides))
    assert (out / "results.md").read_text(encoding="utf-8") == text


def test_what_the_run_said_of_its_data_is_on_the_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    (run / "train.log").write_text("network    tiny\ndata       packs/pictures, 8x8: 90 train, 10 test\nepoch 1\n")
    assert "- data: packs/pictures, 8x8: 90 train, 10 test\n" in page(tmp_path / "docs", run)


def test_runs_that_differ_in_their_seed_are_one_result_with_median_and_range(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"{seed}", seed, last=last) for seed, last in ((2, 0.21), (0, 0.26), (1, 0.22))]
    text = page(tmp_path / "docs", *runs)
    *found, median, spread = rows(text, "seed")
    assert [row["seed"] for row in found] == ["0", "1", "2"]
    assert (median["top-1 error, %"], spread["top-1 error, %"]) == ("**22.00**", "21.00 to 26.00")
    assert (median["minutes"], spread["minutes"]) == ("**10.0**", "10.0 to 10.0")
    assert text.count("launch/train.py") == 3
    assert text.count("](curves/") == 1
    assert "seed 1, the median run](curves/cifar10_lrn-tiny.png)" in text
    assert "22.00 (median of 3 runs; 21.00 to 26.00)" in {row["here"] for row in rows(text, "reference")}


def test_runs_that_differ_in_more_than_their_seed_are_results_of_their_own(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a")
    elsewhere = make_run(tmp_path / "b", 1, device="CPU (a slide rule)")
    command = "torchrun launch/train.py experiment=cifar10_lrn network.layers.lrn1=null"
    other = make_run(tmp_path / "c", 2, command=command)
    configuration = yaml.safe_load((other / "config.yaml").read_text()) | {"network": {"layers": {"lrn1": None}}}
    (other / "config.yaml").write_text(yaml.safe_dump(configuration))
    text = page(tmp_path / "docs", first, elsewhere, other)
    assert "median run" not in text
    assert re.findall(r"\((curves/.*)\)", text) == [f"curves/cifar10_lrn-tiny{n}.png" for n in ("", "-2", "-3")]
    assert "### `tiny network.layers.lrn1=null`" in text
    assert [row["network"] for row in rows(text, "experiment")] == [
        "`tiny`",
        "`tiny`",
        "`tiny network.layers.lrn1=null`",
    ]


def test_experiments_follow_each_other_as_their_runs_are_named(tmp_path: Path) -> None:
    names = ("zebra", "antelope", "zebra")
    runs = [make_run(tmp_path / f"{n}", n, experiment=name) for n, name in enumerate(names)]
    text = page(tmp_path / "docs", *runs)
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == ["zebra", "antelope"]
    assert [(row["experiment"], row["runs"]) for row in rows(text, "experiment")] == [("zebra", "2"), ("antelope", "1")]


INFERRED = "a study note on the paper; that it is the run with LRN is our inference"


@pytest.mark.parametrize(
    "experiment, value, unit, here, when, source",
    [
        # 84.32 % and 81.14 %, 71.25 % after ten epochs: study notes on the paper. 11 and 13 %: paper §3.3.
        ("cifar10_batchnorm", "84.32", "top-1 accuracy, %", "80.00", "last epoch", "a study note on the paper"),
        ("cifar10_batchnorm", "81.14", "top-1 accuracy, %", "70.00", "epoch 10", "a study note on the paper"),
        ("cifar10_lrn", "71.25", "top-1 accuracy, %", "70.00", "epoch 10", INFERRED),
        ("cifar10_lrn", "11", "top-1 error, %", "20.00", "last epoch", "paper §3.3"),
        ("cifar10_lrn", "13", "top-1 error, %", "20.00", "last epoch", "paper §3.3"),
        ("photos", "76.25", "top-1 error, %", "20.00", "last epoch", "counted in the validation labels"),
        # 40.7 and 18.2 %: paper, Table 2; ten views of each image.
        (
            "imagenet_paper",
            "40.7",
            "top-1 error, %",
            "not evaluated with 10 views",
            "last epoch, 10 views",
            "paper, Table 2",
        ),
    ],
)
def test_published_numbers_stand_beside_ours(
    experiment: str, value: str, unit: str, here: str, when: str, source: str, tmp_path: Path
) -> None:
    found = rows(page(tmp_path / "docs", make_run(tmp_path / "a", experiment=experiment)), "reference")
    (row,) = [row for row in found if row["its value"] == value]
    assert (row["measure"], row["here"], row["here after"], row["source"]) == (unit, here, when, source)


def test_an_epoch_that_a_run_did_not_reach_is_said_to_be_missing(tmp_path: Path) -> None:
    short = make_run(tmp_path / "a", epochs=1, top1_error=0.5)
    lines = (short / "metrics.jsonl").read_text().splitlines(keepends=True)
    (short / "metrics.jsonl").write_text("".join(lines[:2]))
    text = page(tmp_path / "docs", short)
    assert rows(text, "seed")[0]["top-1 error at epoch 10, %"] == "-"
    assert "no validation at epoch 10" in {row["here"] for row in rows(text, "reference")}


def test_ten_views_are_compared_with_an_evaluation_of_the_last_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", experiment="imagenet_original_2012")
    evaluate(run, "1-best", 10, 0.1, ["step-000000110"])
    evaluate(run, "2-ensemble", 10, 0.05, ["step-000000120", "step-000000110"])
    evaluate(run, "3-trained-on", 10, 0.01, ["step-000000120"], split="train")
    evaluate(run, "4-last", 10, 0.18, ["step-000000120"], world_size=2)
    evaluate(run, "5-one-view", 1, 0.2, ["step-000000120"], command="python launch/evaluate.py as recorded")
    text = page(tmp_path / "docs", run)
    here = {(row["its value"], row["here"]) for row in rows(text, "reference")}
    assert here == {("40.7", "18.00"), ("40.66", "18.00"), ("18.2", "1.80"), ("18.21", "1.80")}
    evaluated = [row for row in rows(text, "seed") if "checkpoint" in row]
    assert [(row["checkpoint"], row["images of"], row["views"], row["top-1 error, %"]) for row in evaluated] == [
        ("step-000000110 (the best)", "validation", "10", "10.00"),
        ("2 checkpoints, averaged", "validation", "10", "5.00"),
        ("step-000000120 (the last)", "train", "10", "1.00"),
        ("step-000000120 (the last)", "validation", "10", "18.00"),
        ("step-000000120 (the last)", "validation", "1", "20.00"),
    ]
    last = f"checkpoint={run}/checkpoints/step-000000120 split=validation views=10"
    assert f"\ntorchrun --nproc-per-node=2 launch/evaluate.py {last}\n" in text
    assert "\npython launch/evaluate.py as recorded\n" in text


def test_an_evaluation_of_other_data_or_other_pixels_is_no_counterpart(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", experiment="imagenet_paper")
    as_trained = {"pixel_divisor": 1.0, "mean": "center"}
    pack = {"name": "pictures", "source": "pack", "path": "/anywhere/pictures"}
    evaluate(run, "a", 10, 0.1, ["step-000000120"], input={"pixel_divisor": 64.0, "mean": "center"})
    evaluate(run, "b", 10, 0.1, ["step-000000120"], data={**pack, "name": "others"}, input=as_trained)
    text = page(tmp_path / "docs", run)
    assert {row["here"] for row in rows(text, "reference")} == {"not evaluated with 10 views"}
    assert " views=10 input.pixel_divisor=64.0 input.mean=center\n" in text
    assert "scaled the pixels in another way" in text
    evaluate(run, "c", 10, 0.18, ["step-000000120"], data=pack, input=as_trained)
    text = page(tmp_path / "docs", run)
    assert "18.00" in {row["here"] for row in rows(text, "reference")}
    assert [row["images of"] for row in rows(text, "seed")[1:]] == [
        f"{n}validation" for n in ("", "others ", "pictures ")
    ]
    assert "/anywhere" not in text


def test_an_unknown_experiment_has_no_published_number(tmp_path: Path) -> None:
    text = page(tmp_path / "docs", make_run(tmp_path / "a", experiment="my_own"))
    assert "No published number is known" in text
    assert rows(text, "reference") == []
    assert rows(text, "seed")[0]["top-1 error, %"] == "20.00"


def test_a_command_that_was_not_recorded_is_rebuilt_and_said_to_be(tmp_path: Path) -> None:
    text = page(tmp_path / "docs", make_run(tmp_path / "a", seed=3, command=None))
    overrides = "experiment=cifar10_lrn seed=3 recipe.epochs=12 recipe.batch_size=64"
    command = f"```\ntorchrun --nproc-per-node=2 launch/train.py {overrides}\n```"
    assert f"{command}\n\nThis command was not recorded but rebuilt from summary.json" in text


def test_a_command_names_processes_and_nodes_and_no_run_folder() -> None:
    overrides = ["experiment=photos", "run_dir=/somewhere/run", "data.path=packs/a b"]
    kept = "launch/train.py experiment=photos 'data.path=packs/a b'"
    assert command_line("launch/train.py", Launch(), overrides, "run_dir") == f"torchrun {kept}"
    one_node = Launch(world_size=2, local_world_size=2)
    assert command_line("launch/train.py", one_node, overrides, "run_dir") == f"torchrun --nproc-per-node=2 {kept}"
    rendezvous = "--rdzv-backend=c10d --rdzv-endpoint=FIRST_NODE:29500"
    four_nodes = Launch(world_size=32, local_world_size=8)
    assert (
        command_line("launch/train.py", four_nodes, overrides, "run_dir")
        == f"torchrun --nnodes=4 --nproc-per-node=8 {rendezvous} {kept}"
    )


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    written = []
    for _ in range(2):
        page(tmp_path / "docs", run)
        written.append([path.read_bytes() for path in sorted((tmp_path / "docs").rglob("*.*"))])
    assert len(written[0]) == 2
    assert written[0] == written[1]


def test_the_curves_are_pictures(tmp_path: Path) -> None:
    page(tmp_path / "docs", make_run(tmp_path / "a", experiment="in/a folder"))
    assert Image.open(tmp_path / "docs" / "curves" / "in_a_folder-tiny.png").format == "PNG"


def test_a_commit_with_changes_is_said_to_have_them(tmp_path: Path) -> None:
    text = page(tmp_path / "docs", make_run(tmp_path / "a", commit=f"{'ab' * 20}-dirty"))
    assert rows(text, "seed")[0]["commit"] == "ababababab-dirty"
    assert "changes that were not committed" in text


def test_an_ablation_does_not_stand_beside_the_whole_experiments_numbers(tmp_path: Path) -> None:
    command = "torchrun launch/train.py experiment=cifar10_lrn ablation=no_lrn seed=0"
    text = page(tmp_path / "docs", make_run(tmp_path / "a", command=command))
    assert "ablation=no_lrn" in text
    assert not rows(text, "reference")


def test_a_number_of_things_is_in_the_singular_for_one_alone() -> None:
    assert [count(number, "process", "es") for number in (0, 1, 1320)] == [
        "0 processes",
        "1 process",
        "1,320 processes",
    ]
