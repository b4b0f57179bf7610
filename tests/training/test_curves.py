"""Learning curves: the smoothed loss by arithmetic, axes that end where the run ends, and words."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from alexnet_mp.training.curves import draw_learning_curves, smoothed
from alexnet_mp.training.metrics import EvaluationLine, Metrics, Step


def test_a_smoothed_curve_is_a_mean_around_each_value_and_over_fewer_at_the_ends() -> None:
    assert smoothed([3.0] * 7) == pytest.approx([3.0] * 7)
    assert smoothed([1.0, 5.0]) == pytest.approx([1.0, 5.0])
    values = np.random.default_rng(0).random(230)
    found = smoothed(values.tolist())  # two to each side
    assert len(found) == 230
    assert found[100] == pytest.approx(values[98:103].mean())
    assert found[0] == pytest.approx(values[:3].mean())
    assert found[-2] == pytest.approx(values[-4:].mean())


def metrics(steps: int) -> Metrics:
    lines = tuple(Step(step, 1 + (step - 1) // 10, 2.0 / step, 0.01, 100.0) for step in range(1, steps + 1))
    found = tuple(EvaluationLine(10 * epoch, epoch, 1.0 / epoch, 0.5 / epoch, 0.1 / epoch) for epoch in (1, 2, 3))
    return Metrics(lines, found)


@pytest.mark.parametrize("steps", [134, 34, 0])
def test_axes_end_where_the_run_ends(steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Figure] = []
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *_, **__: (figure.draw_without_rendering(), kept.append(figure))
    )
    draw_learning_curves(metrics(steps), tmp_path / "a.png", "cifar10_lrn on $data")
    (figure,) = kept
    loss, error = figure.axes
    assert loss.get_xlim() == error.get_xlim() == (0, max(3, steps / 10))
    smooth = ["training, smoothed"] if steps > 100 else ["training"] if steps else []
    assert [line.get_label() for line in loss.lines if not str(line.get_label()).startswith("_")] == [
        *smooth,
        "validation",
    ]
    if steps:
        assert loss.lines[0].get_ydata() == pytest.approx([2.0 / step for step in range(1, steps + 1)])  # behind it
    assert figure.get_suptitle() == "cifar10 lrn on $data: top-1 error 16.67 % after 3 epochs"
    assert all("$" not in each.get_text() for each in loss.get_yticklabels(which="both"))
