"""Every path that a command takes, times what may be wrong with it: at most one line, which names the path."""

import errno
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
from matplotlib import font_manager
from matplotlib.backends import backend_agg
from PIL import Image

from alexnet_mp.checkpoint.files import save_checkpoint
from alexnet_mp.commands import (
    check,
    classify,
    convert,
    describe,
    evaluate,
    plan,
    plot,
    prepare,
    report,
    results,
    sweep,
    train,
)
from alexnet_mp.common import cli
from alexnet_mp.common.disk import regular, write_files, write_whole
from alexnet_mp.model.build import build_model
from alexnet_mp.sweep import run as sweep_run
from tests.support.evaluations import CLASSES, DIVISOR, make_pack
from tests.support.processes import CHECKOUT, Finished, run_script
from tests.support.runs import make_run
from tests.training.test_train import NARROW
from tests.training.test_validation import small

NOBODY = 65534  # the user whom no file belongs to
# Loaded before: another user may not be allowed to read where Python itself lies.
LOADED = (font_manager, backend_agg, check, classify, convert, describe, evaluate, plan, plot, prepare, report)
LOADED += (results, sweep, train)

# By command: its path arguments, each with the name of what fits in `scene` (None: something new is written there).
TRAIN = [*NARROW, "recipe.batch_size=7", "recipe.epochs=1", "recipe.schedule.milestones=[]"]
PATHS: dict[str, dict[str, tuple[str | None, list[str]]]] = {
    "train": {
        "run_dir": (None, TRAIN),
        "data.path": ("pack", [*TRAIN, "data=pack", "run_dir=new"]),
        "initial_weights.checkpoint": ("checkpoint", [*TRAIN, "run_dir=new"]),
        "dry_run": ("hardware.yaml", TRAIN),
        "--config-dir": ("presets", [*TRAIN, "dry_run=true"]),
    },
    "evaluate": {
        "checkpoint": ("checkpoint", []),
        "data.path": ("pack", ["checkpoint=SCENE/checkpoint"]),
        "out": (None, ["checkpoint=SCENE/checkpoint"]),
    },
    "classify": {
        "checkpoint": ("checkpoint", ["pictures=SCENE/picture.png"]),
        "pictures": ("picture.png", ["checkpoint=SCENE/checkpoint"]),
        "class_names": ("names.txt", ["checkpoint=SCENE/checkpoint", "pictures=SCENE/picture.png"]),
        "data.path": ("pack", ["checkpoint=SCENE/checkpoint", "pictures=SCENE/picture.png"]),
        "out": (None, ["checkpoint=SCENE/checkpoint", "pictures=SCENE/picture.png"]),
    },
    "prepare": {
        "source": ("photos", ["out=new", "size=8", "workers=1"]),
        "out": (None, ["source=SCENE/photos", "size=8", "workers=1"]),
    },
    "describe": {
        "json": (None, ["network=small"]),
        "out": (None, ["networks=[small]", "charts=false"]),
        "networks": ("table.yaml", ["out=new", "charts=false"]),
    },
    "convert": {
        "source": ("checkpoint", ["out=new.safetensors"]),
        "out": (None, ["source=SCENE/checkpoint"]),
    },
    "report": {
        "run_dir": ("run", []),
        "data.path": ("pack", ["run_dir=SCENE/run", "out=new"]),
        "out": (None, ["run_dir=SCENE/run"]),
    },
    "plot": {
        "run_dir": ("run", ["figure=curves", "out=new"]),
        "checkpoint": ("checkpoint", ["run_dir=SCENE/run", "figure=kernels", "out=new"]),
        "runs": ("run", ["figure=relu", "out=new"]),
        "out": (None, ["run_dir=SCENE/run", "figure=curves"]),
    },
    "results": {
        "runs": ("run", ["out=new"]),
        "sweeps": ("run", ["runs=[SCENE/run]", "out=new"]),
        "out": (None, ["runs=[SCENE/run]"]),
    },
    "sweep": {"out": (None, ["variants={one: []}"])},
    "plan": {
        "hardware": ("hardware.yaml", []),
        "against": ("names.txt", []),
        "json": (None, []),
    },
    "check": {"json": (None, ["rounds=1", "batch_size=1"])},
}
LISTS = {"pictures", "networks", "runs", "sweeps"}
CELLS = [(command, key) for command, keys in PATHS.items() for key in keys]


@pytest.fixture(scope="module")
def scene() -> Iterator[Path]:
    """A folder that every user may read: a pack, photographs, a checkpoint, a run, and files of every other kind."""
    folder = Path(tempfile.mkdtemp(prefix="paths-"))
    folder.chmod(0o755)
    try:
        pack = make_pack(folder, CLASSES)
        network = small(len(CLASSES))
        about = {
            "data": {"source": "pack", "path": pack, "verify": True},
            "input": {"pixel_divisor": DIVISOR, "mean": "pixel"},
        }
        save_checkpoint(folder / "checkpoint", build_model(network).state_dict(), network, about, 10)
        shutil.copytree(folder / "checkpoint", make_run(folder / "run") / "checkpoints" / "step-000000002")
        Image.effect_noise((20, 20), 90).convert("RGB").save(folder / "picture.png")
        (folder / "names.txt").write_text("\n".join(CLASSES))
        (folder / "presets").mkdir()
        shutil.copy(CHECKOUT / "conf" / "network" / "small.yaml", folder / "table.yaml")
        shutil.copy(CHECKOUT / "conf" / "hardware_descriptions" / "two_epyc_cores.yaml", folder / "hardware.yaml")
        for each in folder.rglob("*"):
            each.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty folder that every user may write to."""
    folder = Path(tempfile.mkdtemp(prefix="place-"))
    folder.chmod(0o777)
    yield folder
    for each in folder.rglob("*"):
        if each.is_dir() and not each.is_symlink():
            each.chmod(0o755)
    shutil.rmtree(folder)


# What may be wrong: each makes a path in `place` out of `fits` (None: something new is written) and returns it.
Fault = Callable[[Path, Path | None], Path]


def missing(place: Path, fits: Path | None) -> Path:
    return place / "missing" / "deeper"


def file_for_folder(place: Path, fits: Path | None) -> Path:
    """A file; or, if a file fits, something below one."""
    (place / "file").write_text("x")
    return place / "file" / "below" if fits is not None and fits.is_file() else place / "file"


def folder_for_file(place: Path, fits: Path | None) -> Path:
    (place / "folder").mkdir()
    return place / "folder"


def below_a_closed_folder(place: Path, fits: Path | None) -> Path:
    (place / "closed").mkdir(mode=0)
    return place / "closed" / "inside"


def closed(place: Path, fits: Path | None) -> Path:
    """A file or a folder of the right kind that nobody may read or write."""
    path = place / "closed"
    if fits is None:
        path.write_text("x")
    elif fits.is_dir():
        path.mkdir()
    else:
        shutil.copy(fits, path.with_suffix(fits.suffix))
        path = path.with_suffix(fits.suffix)
    path.chmod(0)
    return path


def read_only(place: Path, fits: Path | None) -> Path:
    (place / "read only").mkdir(mode=0o555)
    return place / "read only" / "new"


def pipe(place: Path, fits: Path | None) -> Path:
    path = place / f"pipe{fits.suffix if fits else ''}"
    os.mkfifo(path)
    return path


def link_loop(place: Path, fits: Path | None) -> Path:
    path = place / f"loop{fits.suffix if fits else ''}"
    path.symlink_to(path)
    return path


def too_long(place: Path, fits: Path | None) -> Path:
    return place / ("x" * 300)


def full_disk(place: Path, fits: Path | None) -> Path:
    """With `no_more_bytes`; what is written fails, what is read does not (but may not be a whole run)."""
    return fits or place / "new"


FAULTS: list[Fault] = [missing, file_for_folder, folder_for_file, below_a_closed_folder, closed, read_only, pipe]
FAULTS += [link_loop, too_long, full_disk]
FOR_A_USER = (below_a_closed_folder, closed, read_only)  # to whom permissions apply; root may do everything


@contextmanager
def without_privileges() -> Iterator[None]:
    """As a user to whom nothing belongs, if this process may become one; permissions do not bind root."""
    if os.geteuid() != 0:
        yield
        return
    for place in (CHECKOUT, Path(sys.prefix)):
        if not all(each.stat().st_mode & 0o001 for each in (place, *place.parents)):
            pytest.skip(f"another user cannot read {place}")
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def no_more_bytes() -> Iterator[None]:
    """Files take no byte more, as on a full disk; the error is EFBIG in the place of ENOSPC."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def outcome(command: str, key: str, fault: Fault, scene: Path, place: Path) -> tuple[Finished, Path]:
    """What the command does with the faulty path as `key`; an exception that leaves it fails the test."""
    fits, others = PATHS[command][key]
    path = fault(place, scene / fits if fits else None)
    if key == "out" and command in ("classify", "convert") and fault in (missing, read_only, too_long, full_disk):
        path = path.with_name(f"{path.name}{'.png' if command == 'classify' else '.safetensors'}")
    given = [each.replace("SCENE", str(scene)).replace("=new", f"={place}/new") for each in others]
    given = ["--config-dir", str(path), *given] if key.startswith("-") else [*given, f"{key}={_quoted(key, path)}"]
    given += ["device=cpu"] if command in ("train", "evaluate", "classify", "plot", "check") else []
    as_whom = without_privileges() if fault in FOR_A_USER else patch.dict(os.environ)
    disk = no_more_bytes() if fault is full_disk else patch.dict(os.environ)
    with as_whom, disk, patch.object(sweep_run, "run_jobs"):  # what jobs do, the sweep's tests show
        return run_script(f"launch/{command}.py", given, place), path


def _quoted(key: str, path: Path) -> str:
    return f"['{path}']" if key in LISTS else f"'{path}'"


def assert_at_most_one_line(finished: Finished, path: Path) -> None:
    assert "Traceback" not in finished.stderr
    lines = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    if finished.code == 0:
        assert lines == []
        return
    assert finished.code in (1, 2), finished.stderr
    assert len(lines) == 1, finished.stderr
    is_at_fault = path.parent.name.startswith("place-") or path.parent.parent.name.startswith("place-")
    assert not is_at_fault or path.name in lines[0] or path.parent.name in lines[0], lines[0]


# The whole table takes some minutes. These cells have been tracebacks or hung before, or touch another code each.
FAST: list[tuple[str, str, Fault]] = [
    ("train", "run_dir", too_long),
    ("train", "run_dir", full_disk),
    ("train", "data.path", pipe),
    ("train", "initial_weights.checkpoint", closed),
    ("train", "--config-dir", link_loop),
    ("evaluate", "checkpoint", too_long),
    ("evaluate", "data.path", below_a_closed_folder),
    ("classify", "pictures", pipe),
    ("classify", "pictures", too_long),
    ("classify", "out", below_a_closed_folder),
    ("prepare", "source", pipe),
    ("prepare", "out", link_loop),
    ("prepare", "out", full_disk),
    ("describe", "json", pipe),
    ("describe", "networks", pipe),
    ("convert", "source", pipe),
    ("convert", "out", full_disk),
    ("report", "run_dir", below_a_closed_folder),
    ("report", "out", pipe),
    ("plot", "run_dir", closed),
    ("results", "runs", link_loop),
    ("sweep", "out", link_loop),
    ("plan", "hardware", pipe),
    ("plan", "against", pipe),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("command", "key", "fault"), FAST, ids=lambda each: getattr(each, "__name__", each))
def test_a_path_that_cannot_be_used_ends_in_one_line(
    command: str, key: str, fault: Fault, scene: Path, place: Path
) -> None:
    finished, path = outcome(command, key, fault, scene, place)
    assert_at_most_one_line(finished, path)
    assert finished.code != 0


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize(("command", "key"), CELLS)
def test_every_path_of_every_command(command: str, key: str, fault: Fault, scene: Path, place: Path) -> None:
    assert_at_most_one_line(*outcome(command, key, fault, scene, place))


@pytest.mark.parametrize(
    ("number", "words"),
    [("EACCES", "Permission denied"), ("ESTALE", "Stale file handle"), ("EROFS", "Read-only file system")],
)
def test_an_error_of_the_system_is_one_line_with_the_path(
    number: str, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(configuration: object) -> None:
        code = getattr(errno, number)
        raise OSError(code, os.strerror(code), "/mnt/a\x1b file")

    monkeypatch.setattr("sys.argv", ["describe"])
    with pytest.raises(SystemExit) as ended:
        cli.run_command("describe", fail)
    assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines() == [f"error: /mnt/a\\x1b file: {words}"]


def test_an_error_that_names_no_file_is_a_fault_of_ours_and_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(configuration: object) -> None:
        raise OSError("no file")

    monkeypatch.setattr("sys.argv", ["describe"])
    with pytest.raises(OSError, match="no file"):
        cli.run_command("describe", fail)


def test_what_is_no_regular_file_is_neither_opened_nor_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for use in (regular, lambda path: write_whole(path, b"x"), lambda path: write_files(tmp_path, {path.name: str})):
        with pytest.raises(OSError, match=f"not a regular file: '{pipe}'"):
            use(pipe)
    assert pipe.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
    for path in (tmp_path, tmp_path / "none"):  # a reader or a writer says itself what is wrong with these
        assert regular(path) == path
