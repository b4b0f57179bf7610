"""What comes from elsewhere is data: hostile names are shown as text, hostile files are refused in one line."""

import csv
import gzip
import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from alexnet_mp import ConfigurationError
from alexnet_mp.analysis.evaluate.ensemble import open_ensemble
from alexnet_mp.analysis.evaluate.folder import write_results
from alexnet_mp.analysis.evaluate.settings import EvaluateSettings
from alexnet_mp.analysis.results import markdown
from alexnet_mp.analysis.results.record import read_run
from alexnet_mp.checkpoint.convert.single_device_file import load_single_device
from alexnet_mp.checkpoint.files import save_checkpoint
from alexnet_mp.common.cli import compose, run_command, show
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.common.text import csv_cell, printable, printable_lines
from alexnet_mp.data.prepare.sources import cifar10, devkit
from alexnet_mp.data.prepare.tree import open_tree
from alexnet_mp.data.prepare.workspace import read_sums
from alexnet_mp.network.table import load_network
from alexnet_mp.training.validation import Errors, Evaluation
from tests.analysis.test_results import page
from tests.support.runs import make_run

ESCAPE = "\x1b]0;owned\x07\x1b[2J"


def test_text_for_a_terminal_has_nothing_that_acts_on_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(f"a{ESCAPE}\r\n\x9b\u202e\u2028\udcff\x7fé猫\u3000😀") == (
        "a\\x1b]0;owned\\x07\\x1b[2J\\r\\n\\x9b\\u202e\\u2028\\udcff\\x7fé猫\u3000😀"
    )
    assert printable_lines("a\tb\n\x1b") == "a\tb\n\\x1b"
    show(f"{ESCAPE}\nsecond")
    assert capsys.readouterr().out == "\\x1b]0;owned\\x07\\x1b[2J\nsecond\n"


def test_an_error_shows_a_hostile_name_as_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(configuration: object) -> None:
        raise ConfigurationError(f"member {ESCAPE} is refused")

    monkeypatch.setattr("sys.argv", ["describe"])
    with pytest.raises(SystemExit):
        run_command("describe", fail)
    assert capsys.readouterr().err == "error: member \\x1b]0;owned\\x07\\x1b[2J is refused\n"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("-3", "-3"),
        ("\t=1", "\\t=1"),
        ("cat", "cat"),
    ],
)
def test_a_cell_is_no_formula(text: str, cell: str) -> None:
    assert csv_cell(text) == cell


def test_class_names_reach_the_tables_of_an_evaluation_as_text(tmp_path: Path) -> None:
    names = ["=1+1", f"dog{ESCAPE}", "$x^$"]
    confusions = torch.tensor([[1, 1, 0], [0, 2, 0], [0, 0, 1]])
    evaluation = Evaluation(Errors(1.0, 0.2, 0.0, 5), confusions, torch.zeros(3, dtype=torch.long))
    summary = {"data": {"name": f"pack{ESCAPE}$"}, "split": "test", "views": 1, "top1_error": 0.2}
    write_results(tmp_path, summary, evaluation, names, 5)
    for name in ("classes.csv", "confusions.csv"):
        text = (tmp_path / name).read_text()
        assert "\x1b" not in text
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        assert "'=1+1" in cells
        assert not [cell for cell in cells if cell.startswith("=")]


HOSTILE = "[x](http://e) ![p](http://e) <script>`|\n# head\n```\n" + ESCAPE


def test_a_page_of_results_shows_hostile_names_as_text(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", network=HOSTILE, device=HOSTILE, command=f"a\n```\n{HOSTILE}", placement=HOSTILE)
    (run / "train.log").write_text("data       " + "[x](javascript:0) <img src=x>\n")
    summary = json.loads((run / "summary.json").read_text())
    text = page(tmp_path / "docs", run)
    assert summary["network"] == HOSTILE
    assert "\x1b" not in text
    outside = re.sub(r"(?s)(`{3,})\n.*?\n\1", "", text)
    spans = re.sub(r"`[^`\n]*`", "", outside)
    assert "<" not in spans
    # The one picture of the page is its own.
    assert re.findall(r"\]\(([^)]*)\)", spans) == ["curves/" + next((tmp_path / "docs" / "curves").iterdir()).name]
    assert [line for line in outside.splitlines() if line.startswith("# ")] == ["# Results"]
    assert "````" in text  # longer than the fence in the command


def test_pieces_of_a_page() -> None:
    assert markdown.text("[a](b) <i>") == "[a]\\(b) &lt;i>"
    assert markdown.code("a`b\n") == "`a'b\\n`"
    assert markdown.block(["x ``` y"]) == "````\nx ``` y\n````"


DEEP = "[" * 100_000
# Ten names of ten of the ones before: a billion `x` in a few lines.
LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("summary.json", DEEP, "recursion"),
        ("config.yaml", LAUGHS, "an alias, which no run writes"),
        ("config.yaml", "a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("config.yaml", DEEP, "recursion"),
        ("metrics.jsonl", DEEP, "recursion"),
    ],
)
def test_a_hostile_run_folder_is_refused_in_one_line(name: str, text: str, message: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / name).write_text(text)
    with pytest.raises(ConfigurationError, match=message) as refused:
        read_run(run)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_configuration_that_a_run_writes_is_still_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "config.yaml").write_text(yaml.safe_dump({"a": [1, 1.5e-5, None, "x", True], "b": {"c": "1"}}))
    assert read_run(run).configuration == {"a": [1, 1.5e-5, None, "x", True], "b": {"c": "1"}}


@pytest.mark.parametrize("table", ["{", DEEP, "3", json.dumps({"layers": {}})])
def test_metadata_of_a_foreign_weight_file_is_checked(table: str, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", {"network": table})
    with pytest.raises(ConfigurationError, match=r"x\.safetensors"):
        load_single_device(tmp_path / "x.safetensors", None, "authors")


@pytest.mark.parametrize("names", [3, "cat", ["cat", 3], {"cat": 0}])
def test_class_names_of_a_checkpoint_are_a_list_of_names(names: Any, tmp_path: Path) -> None:
    network = load_network("small")
    folder = tmp_path / "checkpoint"
    description = {"data": {"source": "digits"}, "input": {}, "class_names": names}
    save_checkpoint(folder, {"towers.0.a": torch.zeros(1), "towers.1.a": torch.zeros(1)}, network, description, 1)
    settings = from_mapping(EvaluateSettings, compose("evaluate", [f"checkpoint={folder}"]), "")
    with pytest.raises(ConfigurationError, match="its class_names are not a list of names"):
        open_ensemble(settings)


def npy_of_shape(shape: str) -> bytes:
    header = f"{{'descr': '<u4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def test_an_array_is_not_made_as_large_as_its_header_claims(tmp_path: Path) -> None:
    (tmp_path / "sums.npy").write_bytes(npy_of_shape("(1099511627776,)") + b"x")
    with pytest.raises(ValueError, match="is not a sum of pixels"):
        read_sums(tmp_path / "sums.npy", 4)
    pixels = b"\x01\x00\x00\x00" * 48
    (tmp_path / "sums.npy").write_bytes(npy_of_shape("(4, 4, 3)") + pixels)
    assert read_sums(tmp_path / "sums.npy", 4).tolist() == [[[1] * 3] * 4] * 4


def many_files() -> bytes:
    """Ten members of 8 KiB."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for number in range(10):
            member = tarfile.TarInfo(f"file-{number}")
            member.size = 8192
            archive.addfile(member, io.BytesIO(bytes(8192)))
    return written.getvalue()


def long_extension() -> bytes:
    """A header that says that 80 KiB of attributes follow: tarfile would read them at once."""
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 80 * 1024
    return member.tobuf(tarfile.GNU_FORMAT) + bytes(100 * 1024)


@pytest.mark.parametrize("content", [many_files, long_extension])
def test_a_compressed_archive_is_not_unpacked_beyond_a_limit(
    content: Callable[[], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar10, "_LARGEST", 1 << 15)
    monkeypatch.setattr(devkit, "LARGEST_DEVKIT", 1 << 15)
    path = tmp_path / devkit.ARCHIVES[2012]
    path.write_bytes(gzip.compress(content()))
    for read in (
        lambda: cifar10.list_cifar10(path, tmp_path),
        lambda: devkit.find_devkit(open_tree(tmp_path, tmp_path), tmp_path),
    ):
        with pytest.raises(ConfigurationError, match=r"t12.tar.gz holds more than 32,768 bytes once unpacked; refused"):
            read()


def test_the_limits_leave_room_for_the_real_archives() -> None:
    assert cifar10._LARGEST > 6 * 30_730_000 + 60_000
    assert devkit.LARGEST_DEVKIT > 10 * 2_568_145
