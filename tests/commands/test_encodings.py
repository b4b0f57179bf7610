"""Whatever encoding a terminal or a locale has: files are UTF-8, and nothing that is printed ends a command."""

import ast
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from alexnet_mp.analysis.evaluate.classification import Classified, bars_of_text
from alexnet_mp.checkpoint.files import save_checkpoint
from alexnet_mp.commands import classify, describe
from alexnet_mp.commands.main import main
from alexnet_mp.common.cli import show
from alexnet_mp.common.text import take_every_character
from tests.support.checkpoints import narrowed, random_weights
from tests.support.processes import CHECKOUT, run_command
from tests.support.sources import png, write

SHOWN = {
    "ascii": {
        "cat": "cat",
        "고양이": "\\uace0\\uc591\\uc774",
        "é": "\\xe9",
        "😀": "\\U0001f600",
        "████": "####",
        "a name…": "a name...",
        "a → b": "a -> b",
        "3×3, α 1e-4, β 0.75": "3x3, alpha 1e-4, beta 0.75",
        "5 µs": "5 us",
        "−1": "-1",
    },
    "cp949": {
        "고양이": "고양이",
        "é": "\\xe9",
        "猫": "猫",
        "████": "####",
        "a name…": "a name…",
        "3×3": "3×3",
        "−1": "-1",
    },
    "latin-1": {"é": "é", "고": "\\uace0", "█": "#", "×": "×", "…": "..."},
    "cp1252": {"é": "é", "…": "…", "█": "#", "→": "->"},
    "cp437": {"█": "█", "é": "é", "…": "...", "α": "α", "猫": "\\u732b"},
    "utf-8": {"고양이": "고양이", "😀": "😀", "█": "█", "\udcff": "\\udcff"},
    "utf-16": {"고양이": "고양이", "█": "█"},
}


@contextmanager
def terminal(encoding: str) -> Iterator[Callable[[], str]]:
    """Standard output and errors in an encoding, as strict as Python makes them; yields what has reached them."""
    written = io.BytesIO()
    out, err = (io.TextIOWrapper(written, encoding=encoding, write_through=True) for _ in range(2))
    with patch.object(sys, "stdout", out), patch.object(sys, "stderr", err):
        yield lambda: written.getvalue().decode(encoding)
    out.detach()
    err.detach()


CASES = [(encoding, text, shown) for encoding, texts in SHOWN.items() for text, shown in texts.items()]


@pytest.mark.parametrize("encoding, text, shown", CASES, ids=[f"{e} {t!a}" for e, t, _ in CASES])
def test_what_an_encoding_lacks_is_shown_in_ascii(encoding: str, text: str, shown: str) -> None:
    with terminal(encoding) as printed:
        take_every_character()
        print(text)
        assert printed() == f"{shown}\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp949"])
def test_every_table_of_a_network_is_printed(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(encoding) as printed:
        monkeypatch.setattr(sys, "argv", ["describe.py", "network=original_2012"])
        describe.main()
        monkeypatch.setattr(sys, "argv", ["alexnet-mp", "--help"])
        main()
        assert "60,965,224" in printed()
        assert "KEY=VALUE" in printed()


@pytest.mark.parametrize("encoding", ["ascii", "cp949"])
def test_a_mistake_is_said(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["describe.py", "network='고양이😀'"])
    with terminal(encoding) as printed:
        with pytest.raises(SystemExit) as ended:
            describe.main()
        assert ended.value.code == 2
        assert printed().startswith("error: network is '")
        assert printed().count("\n") == 1


@pytest.mark.parametrize("encoding", ["ascii", "cp949", "utf-8"])
def test_bars_keep_their_length(encoding: str) -> None:
    found = Classified(Path("사진.png"), np.zeros((4, 4, 3), np.uint8), ("고양이", "개"), (0.5, 0.1))
    with terminal(encoding) as printed:
        take_every_character()
        show(bars_of_text([found]))
        assert [len(re.findall("[#█]", line)) for line in printed().splitlines()[1:]] == [15, 3]


@pytest.mark.parametrize("encoding", ["ascii", "cp949"])
def test_a_bar_of_progress_is_drawn_with_what_there_is(encoding: str) -> None:
    with terminal(encoding) as printed:
        take_every_character()
        for _ in tqdm(range(2), desc="준비", ncols=60):
            pass
        assert "100%|####" in printed()


MARKS = {"plain": b"", "with a mark": b"\xef\xbb\xbf"}


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A checkpoint of ten classes and a photograph with a Korean name."""
    network = narrowed("small")
    save_checkpoint(tmp_path / "checkpoint", random_weights(network), network, {}, 10)
    Image.new("RGB", (16, 16), (200, 100, 50)).save(tmp_path / "사진.png")
    rest = ["mean_color=[120,110,100]", "size=16", "input.pixel_divisor=20", "input.mean=pixel", "device=cpu"]
    return [f"checkpoint={tmp_path}/checkpoint", f"pictures='{tmp_path}/사진.png'", *rest]


@pytest.mark.parametrize("mark", MARKS.values(), ids=MARKS)
@pytest.mark.parametrize("encoding", ["ascii", "cp949"])
def test_classify_prints_korean_names_as_far_as_the_terminal_has_them(
    encoding: str, mark: bytes, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"고양이{number}" for number in range(10)]
    (tmp_path / "names.txt").write_bytes(mark + "\r\n".join(names).encode())
    given = [*arguments, f"class_names={tmp_path}/names.txt", f"out={tmp_path}/bars.png"]
    monkeypatch.setattr(sys, "argv", ["classify.py", *given])
    with terminal(encoding) as printed:
        classify.main()
        lines = printed().splitlines()
    shown = "고양이" if encoding == "cp949" else "\\uace0\\uc591\\uc774"
    assert [line.split()[0][:-1] for line in lines[1:6]] == [shown] * 5
    assert "\ufeff" not in "".join(lines)
    assert "feff" not in "".join(lines)
    assert (tmp_path / "bars.png").exists()


@pytest.mark.parametrize("encoding", ["cp949", "utf-16"])
def test_names_in_another_encoding_are_refused(
    encoding: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "names.txt").write_bytes("\n".join(["고양이"] * 10).encode(encoding))
    monkeypatch.setattr(sys, "argv", ["classify.py", *arguments, f"class_names={tmp_path}/names.txt"])
    with terminal("utf-8") as printed, pytest.raises(SystemExit):
        classify.main()
    assert re.fullmatch(r"error: checkpoint \S+: class_names=\S+ is no text in UTF-8: .*\n", printed())


@pytest.mark.parametrize("name", ["words.txt", "wnids.txt"])
def test_a_mark_at_the_beginning_of_a_list_is_no_letter(name: str, tmp_path: Path) -> None:
    from alexnet_mp.data.prepare.tree import open_tree

    write(tmp_path / "source", {f"train/{key}/1.png": png(1) for key in ("n00000001", "n00000002")})
    (tmp_path / "source" / name).write_bytes(b"\xef\xbb\xbfn00000001\tcat\n")
    assert open_tree(tmp_path / "source", tmp_path).text(name) == "n00000001\tcat\n"


def calls(path: Path) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))


def lacks_encoding(call: ast.Call) -> bool:
    """Whether a call reads or writes text in the locale's encoding."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    said = {keyword.arg for keyword in call.keywords} | {f"{n}th" for n, _ in enumerate(call.args, start=1)}
    constants = [each.value for each in call.args if isinstance(each, ast.Constant)]
    if name == "read_text":
        return not said & {"encoding", "1th"}
    if name == "write_text":
        return not said & {"encoding", "2th"}
    if name == "open":
        owner = call.func.value.id if isinstance(call.func, ast.Attribute) and hasattr(call.func.value, "id") else ""
        in_bytes = any(isinstance(mode, str) and "b" in mode for mode in constants)
        return owner not in ("os", "Image", "tarfile", "gzip", "zipfile") and not in_bytes and "encoding" not in said
    return name in ("run", "Popen", "check_output") and "text" in said and "encoding" not in said


def test_every_file_is_read_and_written_in_a_named_encoding() -> None:
    found = [
        f"{path.name}:{call.lineno}"
        for folder in ("src", "launch", "benchmarks")
        for path in (CHECKOUT / folder).rglob("*.py")
        for call in calls(path)
        if lacks_encoding(call)
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "p.read_text()",
        "p.write_text(t)",
        "open(p)",
        "p.open('w')",
        "subprocess.run(c, text=True)",
        "p.read_text(errors='x')",
    ],
)
def test_the_walk_sees_it(line: str) -> None:
    assert lacks_encoding(ast.parse(line).body[0].value)  # type: ignore[attr-defined]


EVERY_COMMAND = """
import sys, warnings
from pathlib import Path
from alexnet_mp.commands import classify, convert, describe, evaluate, plan, plot
from alexnet_mp.commands import prepare, report, results, sweep, train

assert sys.stdout.encoding.lower() in ("ascii", "us-ascii", "ansi_x3.4-1968"), sys.stdout.encoding
small = [f"network.layers.conv{n}.kernels=4" for n in range(1, 6)]
small += ["network.layers.fc6.units=8", "network.layers.fc7.units=8", "recipe.epochs=1"]
small += ["recipe.schedule.milestones=[]"]
for command, arguments in [
    (describe, ["network=original_2012"]),
    (prepare, ["source=photos", "out=pack", "size=16", "workers=1"]),
    (train, ["data=pack", "data.path=pack", "run_dir=run", "network.classes=2", "recipe.batch_size=4", *small]),
    (evaluate, ["checkpoint=run"]),
    (classify, ["checkpoint=run", "pictures=photos/val/*/*", "out=bars.png"]),
    (convert, ["source=run", "out=out.safetensors"]),
    (report, ["run_dir=run"]),
    (plot, ["run_dir=run", "examples=2"]),
    (results, ["runs=[run]", "out=docs"]),
    (plan, ["network=paper"]),
    (sweep, ["out=sweep", "variants={a: []}", "dry_run=true", "overrides=['network.layers.fc6.units=8']"]),
]:
    sys.argv = [command.__file__, *arguments]
    try:
        command.main()
    except SystemExit as ended:
        assert not ended.code, (command.__name__, ended.code)
    print("done", command.__name__)
"""


@pytest.mark.slow
def test_every_command_runs_where_nothing_but_ascii_is_known(tmp_path: Path) -> None:
    content = {f"{s}/{k}/{n}.png": png(n) for s in ("train", "val") for k in ("고양이", "개") for n in range(4)}
    write(tmp_path / "photos", content)
    (tmp_path / "commands.py").write_text(EVERY_COMMAND, "utf-8")
    environment = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    finished = run_command([sys.executable, "commands.py"], tmp_path, 240, **environment)
    assert finished.code == 0, finished.stdout + finished.stderr
    assert len(re.findall("^done ", finished.stdout, re.MULTILINE)) == 11
    assert finished.stdout.isascii()
    names = json.loads((tmp_path / "pack" / "manifest.json").read_text("utf-8"))["class_names"]
    assert sorted(names) == ["개", "고양이"]
