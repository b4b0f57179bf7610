"""Figure 1: epochs to a line by interpolation, tanh beside ReLU seed by seed, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from alexnet_mp.analysis.figures.training_error import compare_activations, epochs_to
from alexnet_mp.commands import plot
from alexnet_mp.common.cli import compose
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.table import parse_network
from tests.support.runs import LAST_EPOCH, make_run


def four_layers(kind: str) -> dict[str, Any]:
    """A table of four weighted layers."""
    rows: dict[str, Any] = {}
    for n in (1, 2, 3):
        reads = "image" if n == 1 else "own"
        rows[f"conv{n}"] = {"kind": "conv", "kernels": 2, "size": 3, "reads": reads, "std": 0.1, "bias": 0}
        rows[f"{kind}{n}"] = {"kind": kind}
    rows["fc4"] = {"kind": "classifier", "std": 0.1, "bias": 0}
    return {"name": f"four_{kind}", "towers": 1, "image": [3, 9, 9], "classes": 10, "layers": rows}


def trained(
    folder: Path, kind: str, seed: int, errors: list[float], rate: float = 0.01, epochs: int = LAST_EPOCH, **keys: Any
) -> Path:
    """A finished run whose training errors after each epoch are `errors`, then the last of them on and on."""
    run = make_run(folder, seed=seed, experiment=f"four_{kind}")
    configuration = yaml.safe_load((run / "config.yaml").read_text())
    configuration["network"] = four_layers(kind)
    configuration["recipe"] |= {"weights": {"learning_rate": rate}, "epochs": epochs}
    configuration |= keys
    (run / "config.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False))
    padded = errors + errors[-1:] * (LAST_EPOCH - len(errors))
    lines = [
        {"kind": "training", "step": 10 * e, "epoch": e, "loss": 1.0, "top1_error": error, "top5_error": 0.0}
        for e, error in enumerate(padded, start=1)
    ]
    metrics = run / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines) + metrics.read_text())
    return run


@pytest.mark.parametrize(
    "errors, expected",
    [
        ([0.9, 0.5, 0.3, 0.2], 2.5),  # half of the way from 0.3 to 0.2
        ([0.9, 0.5, 0.25, 0.1], 2),
        ([0.9, 0.15], 0.65 / 0.75),  # from guessing, within the first epoch
        ([0.9, 0.24, 0.5, 0.2], 0.65 / 0.66),  # the first time counts
        ([0.9, 0.5, 0.26], None),
        ([0.2], 0),
    ],
)
def test_epochs_to_the_line_are_linear_between_two_epochs(errors: list[float], expected: float | None) -> None:
    assert epochs_to(0.25, errors) == (None if expected is None else pytest.approx(expected))


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two seeds of each: ReLU at the line after 1.5 and 2 epochs, tanh after 6 and 9."""
    return [
        trained(tmp_path / "relu0", "relu", 0, [0.3, 0.2]),
        trained(tmp_path / "relu1", "relu", 1, [0.5, 0.25, 0.1]),
        trained(tmp_path / "tanh1", "tanh", 1, [0.7, 0.7, 0.6, 0.6, 0.5, 0.5, 0.4, 0.3, 0.25], rate=0.003),
        trained(tmp_path / "tanh0", "tanh", 0, [0.7, 0.6, 0.5, 0.4, 0.3, 0.25], rate=0.003),
    ]


def draw(out: Path, *runs: Path, **keys: object) -> dict[str, Any]:
    """The numbers that `launch/plot.py figure=relu` leaves."""
    more = [f"{key}={value}" for key, value in keys.items()]
    plot.run(compose("plot", ["figure=relu", f"runs=[{','.join(map(str, runs))}]", f"out={out}", *more]))
    return json.loads((out / "relu.json").read_text())


def test_the_ratio_is_taken_seed_by_seed(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = draw(tmp_path / "plots", *runs)
    assert found["ratios"] == [
        {"seed": 0, "ratio": pytest.approx(6 / 1.5), "at_least": None},
        {"seed": 1, "ratio": pytest.approx(9 / 2), "at_least": None},
    ]
    assert (found["ratio_median"], found["ratio_low"], found["ratio_high"]) == pytest.approx((4.25, 4, 4.5))
    assert [run["errors"][0] for run in found["runs"]] == pytest.approx([0.9] * 4)  # guessing one of ten classes
    page = (tmp_path / "plots" / "relu.md").read_text()
    assert "| tanh | four_tanh | 1 | 0.003 | 12 | 25.00 | 9.00 |" in page
    assert "4.25 times the epochs to 25 % (median of 2 seeds, 4.00 to 4.50); the paper: 6" in capsys.readouterr().out
    assert (tmp_path / "plots" / "relu.png").read_bytes().startswith(b"\x89PNG")


def test_a_lower_bound_alone_is_told_too(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path / "plots", runs[0], runs[3], line=0.22)
    assert "more than 6.67 times the epochs to 22 % (1 seed); the paper: 6" in capsys.readouterr().out  # 12 / 1.8


def test_a_run_that_does_not_come_to_the_line_gives_a_lower_bound(runs: list[Path], tmp_path: Path) -> None:
    found = draw(tmp_path / "plots", *runs, line=0.22)
    # ReLU of seed 0 is at 0.22 after 1.8 epochs, tanh not after 12.
    assert found["ratios"][0] == {"seed": 0, "ratio": None, "at_least": pytest.approx(12 / 1.8)}
    assert found["ratio_median"] is None
    assert "more than 6.67" in (tmp_path / "plots" / "relu.md").read_text()


def test_runs_of_one_activation_differ_in_their_seed_alone(runs: list[Path], tmp_path: Path) -> None:
    other = trained(tmp_path / "relu2", "relu", 2, [0.3, 0.2], rate=0.02)
    with pytest.raises(ConfigurationError, match=r"recipe.weights.learning_rate was 0.01 and is 0.02"):
        compare_activations([str(run) for run in (*runs, other)], 0.25)
    for key, value in (("crossing_dtype", "float16"), ("batch_scaling", "linear")):
        other = trained(tmp_path / key, "relu", 2, [0.3, 0.2], **{key: value})
        with pytest.raises(ConfigurationError, match=f"{key} was None and is '{value}'"):
            compare_activations([str(run) for run in (*runs, other)], 0.25)
    longer = trained(tmp_path / "longer", "relu", 2, [0.3, 0.2], epochs=50, threads=2, experiment_name="mine")
    assert len(compare_activations([str(run) for run in (*runs, longer)], 0.25).curves) == 5
    again = trained(tmp_path / "again", "relu", 1, [0.3, 0.2])
    with pytest.raises(ConfigurationError, match="both ReLU, seed 1"):
        compare_activations([str(run) for run in (*runs, again)], 0.25)


def test_the_two_nets_of_figure_1_differ_in_the_non_linearity_alone() -> None:
    relu, tanh = (
        parse_network(compose("train", [f"experiment=cifar10_four_layers{name}"])["network"]).to_mapping()
        for name in ("", "_tanh")
    )
    otherwise = {name: {**row, "kind": row["kind"].replace("relu", "tanh")} for name, row in relu["layers"].items()}
    assert tanh == {**relu, "name": "cifar10_four_layers_tanh", "layers": otherwise}
    assert [row["kind"] for row in relu["layers"].values()].count("conv") == 3  # and the classifier is the fourth


def test_a_run_without_training_errors_says_how_to_have_them(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "relu", 0, [0.3])
    metrics = run / "metrics.jsonl"
    metrics.write_text("".join(line for line in metrics.open() if '"training"' not in line))
    with pytest.raises(ConfigurationError, match="training_error=true"):
        compare_activations([str(run)], 0.25)
