"""`metrics.jsonl` read back: what a run wrote, and lines that no run writes."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from alexnet_mp.commands import plot
from alexnet_mp.common.cli import compose
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.training.metrics import EvaluationLine, Metrics, Step, check_whole_metrics, read_metrics

TRAIN = {"kind": "train", "step": 1, "epoch": 1, "loss": 2.5, "learning_rate": 0.01, "images_per_second": 90.5}
VALIDATION = {"kind": "validation", "step": 20, "epoch": 2, "loss": 1.5, "top1_error": 0.5, "top5_error": 0.125}
WHOLE = [TRAIN, {**VALIDATION, "kind": "training"}, VALIDATION]


def write(folder: Path, records: list[Any], end: str = "") -> Path:
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + end)
    return path


def test_every_kind_of_line_is_read(tmp_path: Path) -> None:
    evaluation = EvaluationLine(step=20, epoch=2, loss=1.5, top1_error=0.5, top5_error=0.125)
    expected = Metrics((Step(1, 1, 2.5, 0.01, 90.5),), (evaluation,), (evaluation,))
    path = write(tmp_path, [*WHOLE, {"kind": "of a later version"}])
    assert read_metrics(path) == expected
    check_whole_metrics(expected, path)
    assert expected.steps_per_epoch == 10
    assert Metrics().steps_per_epoch is None


@pytest.mark.parametrize(
    "line, why",
    [
        ('{"kind": "train", "st', "Unterminated string"),
        ("[1]", "it is no object"),
        ("{}", "it has no kind"),
        ('{"kind": ["train"]}', "it has no kind"),
        (json.dumps({**TRAIN, "loss": None}), "its loss is not a finite number"),
        (json.dumps({**TRAIN, "loss": float("nan")}), "its loss is not a finite number"),
        (json.dumps({**TRAIN, "learning_rate": 1e300}), "its learning_rate is not a finite number"),
        (json.dumps({**VALIDATION, "top1_error": True}), "its top1_error is not a finite number"),
        (json.dumps({**VALIDATION, "epoch": 1.5}), "its epoch is 1.5, not a count"),
        (json.dumps({**VALIDATION, "step": -1}), "its step is -1, not a count"),
        (json.dumps({key: VALIDATION[key] for key in VALIDATION if key != "epoch"}), "it has no epoch"),
        ("[" * 100_000, "maximum recursion depth"),
    ],
)
def test_a_line_that_no_run_writes_is_left_out_and_named(line: str, why: str, tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE, line + "\n")
    found = read_metrics(path)
    assert (len(found.steps), len(found.validations), len(found.training)) == (1, 1, 1)
    assert len(found.unread) == 1
    assert found.unread[0].startswith(f"line 4: {why}")
    with pytest.raises(ConfigurationError, match=r"metrics\.jsonl is damaged: line 4: "):
        check_whole_metrics(found, path)


def test_metrics_that_are_not_there_or_have_no_validation(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        read_metrics(tmp_path / "metrics.jsonl")
    with pytest.raises(ConfigurationError, match="no validation line"):
        check_whole_metrics(read_metrics(write(tmp_path, [TRAIN])), tmp_path / "metrics.jsonl")


def test_curves_are_drawn_of_a_run_that_is_writing_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = json.dumps(TRAIN)[:20]
    write(tmp_path, WHOLE, half)
    plot.run(compose("plot", [f"run_dir={tmp_path}", "figure=curves"]))
    assert "line 4: " in capsys.readouterr().out
    with Image.open(tmp_path / "plots" / "learning_curve.png") as picture:
        assert picture.size == (1660, 680)

    write(tmp_path, [TRAIN], half)
    with pytest.raises(ConfigurationError, match="no validation yet"):
        plot.run(compose("plot", [f"run_dir={tmp_path}", "figure=curves"]))
