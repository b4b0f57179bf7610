"""What the page of results cannot be made of is named in one line."""

from pathlib import Path

import pytest

from alexnet_mp import ConfigurationError
from tests.analysis.test_results import page
from tests.support.processes import run_script
from tests.support.runs import make_run


def only_line_of_error(out: Path, *runs: Path) -> str:
    with pytest.raises(ConfigurationError) as refused:
        page(out, *runs)
    message = str(refused.value)
    assert "\n" not in message
    assert not out.exists()
    return message


def test_a_folder_that_is_no_finished_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    going_on, good, out = make_run(tmp_path / "going_on"), make_run(tmp_path / "good"), tmp_path / "docs"
    (going_on / "summary.json").unlink()
    for name, why in (
        ("nothing", "not the folder of a run"),
        ("going_on", "not finished"),
        ("missing", "not the folder"),
    ):
        message = only_line_of_error(out, good, tmp_path / name)
        assert str(tmp_path / name) in message
        assert why in message
    assert "named twice" in only_line_of_error(out, good, good)
    assert "give the folders of finished runs" in only_line_of_error(out)


@pytest.mark.parametrize(
    "name, content, fragment",
    [
        ("summary.json", "{", "Expecting property name"),
        ("summary.json", "[]", "must be a mapping"),
        ("summary.json", "{}", "missing key 'network'"),
        ("config.yaml", "a: [", "is not YAML"),
        ("config.yaml", "just words", "is not a configuration"),
        ("metrics.jsonl", "", "no validation line"),
        ("metrics.jsonl", "{}\n", "line 1: it has no kind"),
        ("metrics.jsonl", "half a line", "line 1: Expecting value"),
        ("metrics.jsonl", '{"kind": "validation", "epoch": 1}\n', "line 1: it has no step"),
        (
            "metrics.jsonl",
            '{"kind": "validation", "step": 9, "epoch": 3, "loss": 1, "top1_error": 0.5, "top5_error": 0}\n',
            "different runs",
        ),
    ],
)
def test_a_damaged_file_is_named(name: str, content: str, fragment: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    (run / name).write_text(content)
    message = only_line_of_error(tmp_path / "docs", run)
    assert name in message
    assert fragment in message


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot write out="):
        page(tmp_path / "file" / "docs", make_run(tmp_path / "a"))


def test_the_script_ends_a_mistake_in_one_line(tmp_path: Path) -> None:
    finished = run_script("launch/results.py", ["runs=[nowhere]"], tmp_path)
    assert finished.code == 2
    assert finished.stderr == "error: nowhere is not the folder of a run: it has no summary.json\n"
    make_run(tmp_path / "a")
    finished = run_script("launch/results.py", ["runs=[a]"], tmp_path)
    assert finished.stdout.split() == ["wrote", "docs/results.md", "wrote", "docs/curves/cifar10_lrn-tiny.png"]
