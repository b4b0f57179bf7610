"""How fast are pictures prepared? This library with one and two workers, and a plain Pillow loop, in turns in one run.

python benchmarks/preparation.py source=PHOTOS json=preparation.json

Copies of pictures are prepared in a scratch folder. The plain loop does the same work in one process: decode, shorter
side to `size`, center patch, write, SHA-256, mean image, color covariance. A second one does without the last three.
What is asked for: two workers at least 1.8 times as fast as one, and one worker at least as fast as the plain loop that
does the same work.
"""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

# NumPy's matrix product would use every core, and the loops are of one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import PIL
from PIL import Image

from alexnet_mp.common.cli import run_command
from alexnet_mp.common.schema import OutputFile, PositiveInt, from_mapping
from alexnet_mp.common.text import aligned
from alexnet_mp.data.prepare.prepare import prepare
from alexnet_mp.data.prepare.settings import PreparationSettings
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.performance.benchmark.output import machine_text, machine_values, publish, relative_spread


@dataclass(frozen=True)
class PreparationBenchmarkSettings:
    """The keys of `conf/benchmark/preparation.yaml`, which says what they mean."""

    source: str
    pictures: PositiveInt
    size: PositiveInt
    rounds: PositiveInt
    scratch: str | None
    json: OutputFile | None


def run(configuration: Mapping[str, Any]) -> None:
    """Measure, print the speeds, and write the same numbers as JSON where `json` says."""
    settings = from_mapping(PreparationBenchmarkSettings, configuration, "")
    variants: dict[str, Callable[[Path, Path], int]] = {
        "one_worker": partial(_library, size=settings.size, workers=1),
        "two_workers": partial(_library, size=settings.size, workers=2),
        "pillow_loop": partial(_plain_loop, size=settings.size, same_work=True),
        "pillow_loop_pixels_only": partial(_plain_loop, size=settings.size, same_work=False),
    }
    rates: dict[str, list[float]] = {name: [] for name in variants}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=settings.scratch) as name:
        scratch = Path(name)
        _copy(Path(settings.source), scratch / "warm", 8)
        _copy(Path(settings.source), scratch / "photos", settings.pictures)
        for number in range(-1, settings.rounds):  # the first warms up: imports, the fork server, the page cache
            for variant, function in variants.items():
                photos = scratch / ("warm" if number < 0 else "photos")
                started = time.perf_counter()
                count = function(photos, scratch / "out")
                seconds = time.perf_counter() - started
                shutil.rmtree(scratch / "out")
                if number >= 0:
                    rates[variant].append(count / seconds)
    report = _summarize(settings, rates, load)
    publish(report, _text(report), settings.json)


def _plain_loop(photos: Path, out: Path, size: int, same_work: bool) -> int:
    """Prepare the training pictures one after another, as one would write it in a notebook."""
    out.mkdir()
    files = sorted((photos / "train").rglob("*.*"))
    total = np.zeros((size, size, 3), dtype=np.int64)
    products = np.zeros((3, 3))
    digest = hashlib.sha256()
    with (out / "images.bin").open("wb") as target:
        for file in files:
            image = Image.open(file).convert("RGB")
            scale = size / min(image.size)
            width, height = (round(side * scale) for side in image.size)
            if (width, height) != image.size:
                image = image.resize(
                    (width, height), Image.Resampling.BILINEAR if scale < 1 else Image.Resampling.BICUBIC
                )
            left, top = (width - size) // 2, (height - size) // 2
            pixels = np.asarray(image.crop((left, top, left + size, top + size)))
            target.write(pixels.data)
            if same_work:
                digest.update(pixels.data)
                total += pixels
                flat = pixels.reshape(-1, 3).astype(np.float64)
                products += flat.T @ flat
        if same_work:
            target.flush()
            os.fsync(target.fileno())
    return len(files)


def _library(photos: Path, out: Path, size: int, workers: int) -> int:
    """Prepare the same pictures with this library."""
    settings = PreparationSettings(str(photos), str(out), size=size, workers=workers, strict=True)
    return prepare(settings).images_decoded


def _copy(source: Path, target: Path, pictures: int) -> None:
    """A folder of two classes with so many copies of the pictures under `source`."""
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not found:
        raise ConfigurationError(f"source={source}: there are no pictures under it")
    for i in range(pictures):
        path = target / "train" / f"class{i % 2}" / f"{i:06d}{found[i % len(found)].suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found[i % len(found)], path)


def _summarize(settings: PreparationBenchmarkSettings, rates: Mapping[str, list[float]], load: float) -> dict[str, Any]:
    """Medians over the rounds of images a second, with (max - min) / median, and of the ratios within a round."""

    def ratio(fast: str, slow: str) -> float:
        return median(a / b for a, b in zip(rates[fast], rates[slow], strict=True))

    machine = machine_values(load)
    return {
        "pictures": settings.pictures,
        "size": settings.size,
        "rounds": settings.rounds,
        "machine": {**machine, "versions": {**machine["versions"], "pillow": PIL.__version__}},
        "images_per_second": {name: median(values) for name, values in rates.items()},
        "spread": {name: relative_spread(values) for name, values in rates.items()},
        "images_per_second_of_rounds": rates,
        "two_workers_to_one": ratio("two_workers", "one_worker"),
        "one_worker_to_pillow_loop": ratio("one_worker", "pillow_loop"),
        "one_worker_to_pillow_loop_pixels_only": ratio("one_worker", "pillow_loop_pixels_only"),
    }


def _text(report: Mapping[str, Any]) -> str:
    speeds = report["images_per_second"]
    table = [["", "images/s", "spread"]]
    table += [[name.replace("_", " "), f"{speeds[name]:,.0f}", f"{report['spread'][name]:.0%}"] for name in speeds]
    ratios = [f"{name.replace('_', ' ')}: {value:.2f}" for name, value in report.items() if "_to_" in name]
    about = f"pictures: {report['pictures']}, shorter side: {report['size']}, rounds: {report['rounds']}"
    return "\n".join([machine_text(report["machine"]), about, "", *aligned(table), "", *ratios])


def main() -> None:
    """Entry point of `benchmarks/preparation.py`; see `conf/benchmark/preparation.yaml` for the keys."""
    run_command("benchmark/preparation", run)


if __name__ == "__main__":
    main()
