"""The loader's benchmark runs, and writes what it says."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import CHECKOUT, run_command

SIZES = ["images=[32,48]", "size=16", "crop=14", "rounds=1"]
VARIANTS = ["cold_random", "cold_fixed", "warm_random_large", "warm_random_small"]


def benchmark(cwd: Path, *arguments: str) -> Any:
    return run_command([sys.executable, str(CHECKOUT / "benchmarks" / "loader.py"), *arguments], cwd)


def test_every_variant_and_the_memory_are_in_the_report_and_the_packs_are_gone(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    finished = benchmark(tmp_path, *SIZES, "batch_size=8", "scratch=scratch", "json=loader.json")
    assert finished.code == 0, finished.stderr
    assert list((tmp_path / "scratch").iterdir()) == []
    report = json.loads((tmp_path / "loader.json").read_text())
    assert report["images"] == {"small": 32, "large": 48}
    assert list(report["images_per_second"]) == list(report["in_page_cache_before"]) == VARIANTS
    for name in VARIANTS:
        figures = report["images_per_second"][name]
        assert figures["median"] > 0 and figures["spread"] == 0 and len(figures["rounds"]) == 1
        assert f"{name}: {figures['median']:,.0f} images/s" in finished.stdout
    about = report["machine"]
    assert (about["loader_threads"], about["threads"]) == (1, 1)
    assert about["versions"].keys() == {"alexnet_mp", "python", "torch", "numpy"}
    if sys.platform == "linux":
        assert report["in_page_cache_before"]["warm_random_large"] == [1]
        memory = report["memory"]
        small, large = (memory["held_mb"][name]["median"] for name in ("small", "large"))
        assert memory["growth_mb"]["median"] == pytest.approx(large - small)
        assert about["device"] in finished.stdout


def test_packs_below_a_batch_are_refused_before_they_are_written(tmp_path: Path) -> None:
    finished = benchmark(tmp_path, *SIZES, "batch_size=33", "scratch=.")
    assert finished.code == 2
    assert "images=[32, 48] must be [SMALL,LARGE] of a batch or more" in finished.stderr
    assert list(tmp_path.iterdir()) == []
