"""How fast are pictures prepared? This library with one and two workers, and a plain Pillow loop, in turns in one run.

python benchmarks/preparation.py --source PHOTOS --json preparation.json

PHOTOS is any folder with pictures; copies of them are prepared under --scratch. The plain loop does the same work in
one process: decode, shorter side to `size`, center patch, write, SHA-256, mean image, color covariance. A second one
does without the last three. What is asked for: two workers at least 1.8 times as fast as one, and one worker at least
as fast as the plain loop that does the same work.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# NumPy's matrix product would use every core, and the loops are of one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import PIL
from PIL import Image


def plain_loop(photos: Path, out: Path, size: int, same_work: bool) -> int:
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


def library(photos: Path, out: Path, size: int, workers: int) -> int:
    """Prepare the same pictures with this library."""
    # Worker processes import this file too, and do not need these.
    from alexnet_mp.data.prepare.prepare import prepare
    from alexnet_mp.data.prepare.settings import PreparationSettings

    settings = PreparationSettings(str(photos), str(out), size=size, workers=workers, strict=True)
    return prepare(settings).images_decoded


def copies(source: Path, target: Path, pictures: int) -> None:
    """A folder of two classes with so many copies of the pictures under `source`."""
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not found:
        raise SystemExit(f"error: no pictures under {source}")
    for i in range(pictures):
        path = target / "train" / f"class{i % 2}" / f"{i:06d}{found[i % len(found)].suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found[i % len(found)], path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="where pictures and packs are written; default: the system's")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    size = arguments.size
    variants: dict[str, Callable[[Path, Path], int]] = {
        "one_worker": lambda photos, out: library(photos, out, size, 1),
        "two_workers": lambda photos, out: library(photos, out, size, 2),
        "pillow_loop": lambda photos, out: plain_loop(photos, out, size, same_work=True),
        "pillow_loop_pixels_only": lambda photos, out: plain_loop(photos, out, size, same_work=False),
    }
    rates: dict[str, list[float]] = {name: [] for name in variants}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as name:
        scratch = Path(name)
        copies(arguments.source, scratch / "warm", 8)
        copies(arguments.source, scratch / "photos", arguments.pictures)
        for round_number in range(-1, arguments.rounds):  # the first warms up: imports, the fork server, the page cache
            for variant, function in variants.items():
                photos = scratch / ("warm" if round_number < 0 else "photos")
                started = time.perf_counter()
                count = function(photos, scratch / "out")
                seconds = time.perf_counter() - started
                shutil.rmtree(scratch / "out")
                if round_number >= 0:
                    rates[variant].append(count / seconds)
    report = summarize(arguments, rates, load)
    print_report(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def summarize(arguments: argparse.Namespace, rates: dict[str, list[float]], load: float) -> dict[str, object]:
    """Images per second: the median over the rounds, and (max - min) / median."""
    from alexnet_mp.common.host import usable_cores

    median = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "pictures": arguments.pictures,
        "size": arguments.size,
        "rounds": arguments.rounds,
        "machine": {
            "platform": f"{platform.system()} {platform.machine()}",
            "cores": usable_cores(),
            "load_average_before": load,
            "versions": {"python": platform.python_version(), "numpy": np.__version__, "pillow": PIL.__version__},
        },
        "images_per_second": median,
        "spread": {name: (max(values) - min(values)) / median[name] for name, values in rates.items()},
        "images_per_second_of_rounds": rates,
        "two_workers_to_one": ratio(rates, "two_workers", "one_worker"),
        "one_worker_to_pillow_loop": ratio(rates, "one_worker", "pillow_loop"),
        "one_worker_to_pillow_loop_pixels_only": ratio(rates, "one_worker", "pillow_loop_pixels_only"),
    }


def ratio(rates: dict[str, list[float]], fast: str, slow: str) -> float:
    """The median over the rounds of the ratio within a round, in which the machine was equally busy."""
    return statistics.median(a / b for a, b in zip(rates[fast], rates[slow], strict=True))


def print_report(report: dict[str, object]) -> None:
    for key, value in report.items():
        print(f"{key}: {value}")


if __name__ == "__main__":
    main()
