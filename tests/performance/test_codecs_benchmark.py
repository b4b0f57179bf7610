"""The benchmark of the codecs runs, and writes what it says."""

import json
import sys
from pathlib import Path

import pytest

from tests.support.preparation import noise
from tests.support.processes import CHECKOUT, run_command


def test_sizes_speeds_and_the_change_of_pixels_are_in_the_report(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "scratch").mkdir()
    for i in range(3):
        noise(i).save(tmp_path / "photos" / f"{i}.png")
    sizes = ["pictures=9", "size=16", "crop=14", "batch_size=4", "rounds=1", "scratch=scratch", "json=codecs.json"]
    command = [sys.executable, str(CHECKOUT / "benchmarks" / "codecs.py"), "source=photos", *sizes]
    finished = run_command(command, tmp_path)
    assert finished.code == 0, finished.stderr
    assert list((tmp_path / "scratch").iterdir()) == []
    report = json.loads((tmp_path / "codecs.json").read_text())
    assert report["different_pictures"] == 3
    assert report["bytes_an_image"]["raw"] == 16 * 16 * 3
    for kind in ("raw", "jpeg", "folder"):
        figures = report["images_per_second"][kind]
        assert figures["median"] > 0 and report["images_per_core_second"][kind]["median"] > 0
        assert f"{figures['median']:,.0f}" in finished.stdout
    change = report["change_by_jpeg"]
    assert change["mean_absolute_difference"] < change["percentile_99"] < 256
    assert change["psnr_db"] == pytest.approx(15, abs=10)  # of noise; photographs keep far more
