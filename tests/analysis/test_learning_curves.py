"""Several runs' curves in one picture: whose they are, over which steps, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from alexnet_mp.analysis.figures.learning_curves import draw_curves_of_runs, read_curves
from alexnet_mp.commands import plot
from alexnet_mp.common.cli import compose
from alexnet_mp.errors import ConfigurationError


def trained(run: Path, losses: list[float], errors: dict[int, float]) -> str:
    """A run's folder with a line for each of its steps, and one for the top-1 error after some of them."""
    lines = [{"kind": "train", "step": step, "epoch": 1, "loss": loss} for step, loss in enumerate(losses, start=1)]
    lines += [
        {"kind": "validation", "step": step, "epoch": 1, "loss": 1.0, "top1_error": error, "top5_error": 0.0}
        for step, error in errors.items()
    ]
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(run)


def test_each_runs_losses_and_errors_stand_at_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [
        trained(tmp_path / "text" / "seed-0", [5.0, 5.0, 5.0, 5.0], {}),
        trained(tmp_path / "code" / "seed-0", [5.0, 4.0], {1: 0.75, 2: 0.5}),
    ]
    kept: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: kept.append(figure))
    draw_curves_of_runs(read_curves(runs), tmp_path / "a.png")
    loss, error = kept[0].axes
    named = {str(line.get_label()): line for line in loss.lines if not str(line.get_label()).startswith("_")}
    assert {name: np.asarray(line.get_xdata()).tolist() for name, line in named.items()} == {
        "text/seed-0": [1, 2, 3, 4],
        "code/seed-0, top-1 error 50.0 %": [1, 2],
    }
    second = named["code/seed-0, top-1 error 50.0 %"]
    assert np.asarray(second.get_ydata()).tolist() == [5, 4]
    (only,) = [line for line in error.lines if len(np.asarray(line.get_xdata()))]
    assert np.asarray(only.get_xydata()).tolist() == [[1, 75], [2, 50]]
    assert only.get_color() == second.get_color() != named["text/seed-0"].get_color()
    assert loss.get_xlim() == error.get_xlim() == (0, 4)

    draw_curves_of_runs(read_curves(runs[:1]), tmp_path / "b.png")  # before any validation
    draw_curves_of_runs(read_curves([trained(tmp_path / "_of_145", [5.0], {1: 0.75})]), tmp_path / "c.png")
    for figure, legend in zip(kept[1:], ("seed-0", " of 145, top-1 error 75.0 %"), strict=True):
        (losses,) = figure.axes  # one point of an error is no curve
        assert losses.get_ylabel() == "training cross-entropy"
        assert [words.get_text() for words in losses.get_legend().get_texts()] == [legend]


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigurationError) as error:
        plot.run(compose("plot", ["figure=curves", *overrides]))
    return str(error.value)


def test_the_command_draws_them_or_says_why_not(tmp_path: Path) -> None:
    run, empty = trained(tmp_path / "run", [2.0, 1.0], {2: 0.25}), trained(tmp_path / "empty", [], {})
    out = f"out={tmp_path / 'out'}"
    assert "names a run twice" in refused(f"runs=[{run},{run}/]", out)
    assert "empty has no training step yet" in refused(f"runs=[{run},{empty}]", out)
    assert f"cannot read {tmp_path / 'gone' / 'metrics.jsonl'}" in refused(f"runs=[{run},{tmp_path / 'gone'}]", out)
    assert "needs out=FOLDER" in refused(f"runs=[{run}]")
    assert not (tmp_path / "out").exists()
    plot.run(compose("plot", ["figure=curves", f"runs=[{run}]", out]))
    assert Image.open(tmp_path / "out" / "learning_curves.png").size[0] == 1660
