"""A run or a pack that was moved or renamed is known by its content; what classifies photographs is in the run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from alexnet_mp.analysis.evaluate.settings import DataChanges
from alexnet_mp.analysis.report.checkpoint_analysis import ReportOptions, analyze_checkpoint
from alexnet_mp.data.find import find_data
from alexnet_mp.data.load import DataSettings, load_data
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.training.run_input import read_run_input
from tests.support.evaluations import CLASSES, make_pack
from tests.support.processes import Finished, run_script
from tests.training.test_train import NARROW

RUN, PACK = Path("runs/a"), Path("packs/seven")
SHORT = (*NARROW, "recipe.batch_size=7", "recipe.epochs=1", "recipe.schedule.milestones=[]", "device=cpu")
Place = Callable[[], Path]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pack, a run that was trained on it, and that run's evaluation."""
    folder = tmp_path_factory.mktemp("home")
    make_pack(folder, CLASSES)
    (folder / "packs").mkdir()
    (folder / "pack").rename(folder / PACK)
    trained = run_script("launch/train.py", [*SHORT, "data=pack", f"data.path={PACK}", f"run_dir={RUN}"], folder)
    assert trained.code == 0, trained.stderr
    evaluated = evaluate(folder, RUN)
    assert evaluated.code == 0, evaluated.stderr
    return folder


def evaluate(cwd: Path, run: Path, *overrides: str) -> Finished:
    return run_script("launch/evaluate.py", [f"checkpoint={run}", "device=cpu", *overrides], cwd)


def results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "evaluation" / "validation-1views" / "summary.json").read_text())
    return found


def fingerprint(pack: Path) -> str:
    return f"{load_data(DataSettings('pack', str(pack)), (3, 16, 16), 7).fingerprint():014x}"


def moved_together(home: Path, to: Path) -> Path:
    return shutil.copytree(home, to / "deep" / "new")


def moved_deeper(home: Path, to: Path) -> Path:
    """The pack is not as far from the run as it was, and still below a folder that the run lies in."""
    shutil.copytree(home / RUN, to / "more" / RUN)
    shutil.copytree(home / PACK, to / PACK)
    return to / "more"


def pack_renamed(home: Path, to: Path) -> Path:
    folder = shutil.copytree(home, to / "new")
    (folder / PACK).rename(folder / "packs" / "another name")
    return folder


def pack_beside_others(home: Path, to: Path) -> Path:
    folder = pack_renamed(home, to)
    make_pack(to / "other", [*CLASSES, "hen"])
    shutil.copytree(to / "other" / "pack", folder / "packs" / "a")
    (folder / "packs" / "broken").mkdir()
    (folder / "packs" / "broken" / "manifest.json").write_text("{")
    return folder


MOVES = [moved_together, moved_deeper, pack_beside_others]


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
def test_a_moved_run_is_evaluated_as_before_from_any_folder(
    move: Callable[[Path, Path], Path], home: Path, tmp_path: Path
) -> None:
    run = move(home, tmp_path / "moved") / RUN
    (tmp_path / "elsewhere").mkdir()
    finished = evaluate(tmp_path / "elsewhere", run)
    assert finished.code == 0, finished.stderr
    before, now = results(home / RUN), results(run)
    assert (now["loss"], now["data"]["name"], now["identity"]) == (before["loss"], "seven", before["identity"])
    assert Path(now["data"]["path"]).is_relative_to(tmp_path), "the copy's pack, and not that of the first run"


def test_a_pack_on_another_disk_is_asked_for_by_its_fingerprint(home: Path, tmp_path: Path) -> None:
    run = shutil.copytree(home / RUN, tmp_path / "run")
    wanted = fingerprint(home / PACK)
    refused = evaluate(tmp_path, run)
    assert refused.code == 2
    assert f"with fingerprint {wanted}; data.path=FOLDER names another" in refused.stderr
    shutil.copytree(home / PACK, tmp_path / "disk" / "photos")
    finished = evaluate(tmp_path, run, "data.path=disk/photos")
    assert finished.code == 0, finished.stderr
    assert results(run)["loss"] == results(home / RUN)["loss"]


def test_other_data_in_the_place_of_a_pack_are_not_taken_for_it(home: Path, tmp_path: Path) -> None:
    run = shutil.copytree(home / RUN, tmp_path / "run")
    manifest_file = shutil.copytree(home / PACK, tmp_path / PACK) / "manifest.json"
    manifest = json.loads(manifest_file.read_text())
    manifest["splits"]["validation"] = manifest["splits"].pop("test")  # other images, of the same classes
    manifest_file.write_text(json.dumps(manifest))
    refused = evaluate(tmp_path, run)
    assert refused.code == 2
    held, wanted = fingerprint(tmp_path / PACK), fingerprint(home / PACK)
    assert f"{PACK} has other data, of fingerprint {held}" in refused.stderr
    assert f"with fingerprint {wanted}; data.path=FOLDER names another" in refused.stderr
    finished = evaluate(tmp_path, run, f"data.path={PACK}", "out=out")
    assert finished.code == 0, finished.stderr


def test_a_moved_run_replaces_its_own_results_and_no_others(home: Path, tmp_path: Path) -> None:
    run = moved_together(home, tmp_path) / RUN
    (run / "evaluation" / "validation-1views" / "classes.csv").write_text("old")
    assert evaluate(tmp_path, run).code == 0
    assert (run / "evaluation" / "validation-1views" / "classes.csv").read_text() != "old"
    summary = run / "evaluation" / "validation-1views" / "summary.json"
    said = json.loads(summary.read_text())
    said["checkpoints"], said["identity"]["checkpoints"] = ["another"], "0"
    summary.write_text(json.dumps(said))
    refused = evaluate(tmp_path, run)
    assert "holds results for checkpoints" in refused.stderr


@pytest.fixture(scope="module")
def picture(home: Path) -> Path:
    Image.effect_noise((40, 30), 90).convert("RGB").save(home / "noise.png")
    return home / "noise.png"


def classify(cwd: Path, run: Path, picture: Path, *overrides: str) -> Finished:
    return run_script("launch/classify.py", [f"checkpoint={run}", f"pictures={picture}", *overrides], cwd)


def test_photographs_are_classified_without_the_pack_as_with_it(home: Path, picture: Path, tmp_path: Path) -> None:
    run = shutil.copytree(home / RUN, tmp_path / "run")
    alone = classify(tmp_path, run, picture)
    assert alone.code == 0, alone.stderr
    (run / "input.safetensors").unlink()  # as in a run of an earlier version
    refused = classify(tmp_path, run, picture)
    assert refused.code == 2
    assert "data.path=FOLDER" in refused.stderr
    assert classify(tmp_path, run, picture, f"data.path={home / PACK}").stdout == alone.stdout
    moved = shutil.copytree(home, tmp_path / "moved")
    (moved / RUN / "input.safetensors").unlink()
    assert classify(moved, RUN, picture).stdout == alone.stdout
    assert any(name in alone.stdout for name in CLASSES)


def test_the_run_folder_says_what_its_data_were(home: Path) -> None:
    found = read_run_input(home / RUN)
    assert found is not None
    data = load_data(DataSettings("pack", str(home / PACK)), (3, 16, 16), 7)
    assert (found.mean_image == data.statistics.mean_image).all()
    assert found.names_for_people == data.names_for_people == tuple(CLASSES)
    assert (found.fingerprint, found.data_from_run) == (data.fingerprint(), "../../packs/seven")


@pytest.mark.parametrize("damage", ["cut short", "no numbers", "another format", "a folder"])
def test_a_damaged_file_is_said_and_that_of_other_data_is_not_used(
    damage: str, home: Path, picture: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(home / RUN, tmp_path / "run")
    path = run / "input.safetensors"
    content = path.read_bytes()
    path.unlink()
    if damage == "cut short":
        path.write_bytes(content[:-1])
    elif damage == "no numbers":
        save_file({"mean_image": torch.full((20, 20, 3), torch.nan, dtype=torch.float64)}, path, about(content))
    elif damage == "another format":
        save_file({"mean_image": torch.zeros(20, 20, 3, dtype=torch.float64)}, path, {"format": "x"})
    else:
        path.mkdir()
    refused = classify(tmp_path, run, picture)
    assert (refused.code, refused.stderr.count("\n")) == (2, 1)
    assert f"cannot read {path}" in refused.stderr


def about(content: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: after eight bytes of length, JSON."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata: dict[str, str] = header["__metadata__"]
    return metadata


def test_the_file_of_another_run_is_not_used(home: Path, picture: Path, tmp_path: Path) -> None:
    run = shutil.copytree(home / RUN, tmp_path / "run")
    path = run / "input.safetensors"
    metadata = about(path.read_bytes())
    other = {**json.loads(metadata["about"]), "fingerprint": 1}
    save_file(load_file(path), path, {**metadata, "about": json.dumps(other)})
    assert classify(tmp_path, run, picture).code == 2
    with_pack = classify(tmp_path, run, picture, f"data.path={home / PACK}")
    assert with_pack.code == 0, with_pack.stderr


def test_the_report_of_a_moved_run_lacks_nothing(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = pack_renamed(home, tmp_path) / RUN
    monkeypatch.chdir(tmp_path)
    found = analyze_checkpoint(run, ReportOptions(DataChanges(), images=5, examples=1, batch_size=5, seed=0))
    assert found.missing == []
    assert found.predictions is not None
    shutil.rmtree(tmp_path / "new" / "packs")
    found = analyze_checkpoint(run, ReportOptions(DataChanges(), images=5, examples=1, batch_size=5, seed=0))
    assert "with fingerprint " in found.missing[0]


def test_a_moved_run_resumes_with_its_own_data(home: Path, tmp_path: Path) -> None:
    more = [*SHORT, "recipe.epochs=2", "data=pack", f"data.path={PACK}"]
    stayed, moved = moved_together(home, tmp_path / "one"), pack_renamed(home, tmp_path / "two")
    for cwd, run in ((stayed, RUN), (tmp_path, moved / RUN)):
        finished = run_script("launch/train.py", [*more, f"run_dir={run}"], cwd)
        assert finished.code == 0, finished.stderr
        assert "going on" in finished.stderr
    losses = [
        [json.loads(line)["loss"] for line in (folder / RUN / "metrics.jsonl").read_text().splitlines()]
        for folder in (stayed, moved)
    ]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_runs_on_copies_of_one_pack_are_averaged(home: Path, tmp_path: Path) -> None:
    copy = moved_together(home, tmp_path)
    runs = f"[{home / RUN},{copy / RUN}]"
    finished = evaluate(tmp_path, Path(runs), f"out={tmp_path / 'out'}")
    assert finished.code == 0, finished.stderr
    found = json.loads((tmp_path / "out" / "summary.json").read_text())["loss"]
    assert found == pytest.approx(results(home / RUN)["loss"], rel=1e-6)


def test_without_a_fingerprint_the_path_alone_is_known(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no other `photos` is
    settings = DataSettings("pack", str(PACK))
    assert find_data(settings, home / RUN, None, None) == settings
    assert find_data(DataSettings("digits"), home / RUN, None, 1) == DataSettings("digits")
    folder = DataSettings("folder", "photos")
    assert find_data(folder, home / RUN, None, 1).path == str(home / "photos"), "a folder is found by its place"
    with pytest.raises(ConfigurationError):
        load_data(settings, (3, 16, 16), 7)
