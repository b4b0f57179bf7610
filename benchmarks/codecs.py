"""How large are packs of raw pixels and of JPEGs, how fast are they read, and how much does JPEG change pixels?

python benchmarks/codecs.py source=PHOTOS json=codecs.json

Copies of the pictures under PHOTOS become a raw pack and a pack of JPEGs in a scratch folder. The loader reads both and
the pictures themselves as `data=folder` does, in turns, whole epochs with the augmentation of the recipe `paper`, from
the page cache. Images a second of the cores' time (user and system, all threads) are what one core would read that has
nothing else to do, so that other work on the machine counts less. What is asked for: 2,000 images/s of a pack of JPEGs
on two cores.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Threads are the loader's; the variables count only if they are set before the libraries are there.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import PIL
import torch
from PIL import features

from alexnet_mp.common.cli import run_command
from alexnet_mp.common.schema import OutputFile, PositiveInt, from_mapping
from alexnet_mp.common.text import aligned
from alexnet_mp.data.dataset import DataSet, Images, Share
from alexnet_mp.data.load import DataSettings, load_data
from alexnet_mp.data.loader import Loader, LoaderSettings
from alexnet_mp.data.manifest import Codec
from alexnet_mp.data.prepare.prepare import prepare
from alexnet_mp.data.prepare.settings import PreparationSettings
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.performance.benchmark.output import machine_text, machine_values, over_rounds, publish
from alexnet_mp.performance.benchmark.paper_recipe import paper_recipe

_CODECS: tuple[Codec, ...] = ("raw", "jpeg")


@dataclass(frozen=True)
class CodecBenchmarkSettings:
    """The keys of `conf/benchmark/codecs.yaml`, which says what they mean."""

    source: str
    pictures: PositiveInt
    size: PositiveInt
    crop: PositiveInt
    batch_size: PositiveInt
    quality: PositiveInt
    threads: PositiveInt
    rounds: PositiveInt
    scratch: str | None
    json: OutputFile | None


def run(configuration: Mapping[str, Any]) -> None:
    """Measure, print a table, and write the same numbers as JSON where `json` says."""
    settings = from_mapping(CodecBenchmarkSettings, configuration, "")
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=settings.scratch) as name:
        scratch = Path(name)
        different = _copy(Path(settings.source), scratch / "photos", settings.pictures)
        data = _data_sets(settings, scratch)
        rates, of_core = _rates(settings, data)
        change = _change(data["raw"].splits["train"], data["jpeg"].splits["train"])
        stored = {kind: each.splits["train"].stored_bytes / settings.pictures for kind, each in data.items()}
    machine = machine_values(load)
    libraries = {"pillow": PIL.__version__, "libjpeg-turbo": str(features.version("libjpeg_turbo"))}
    report = {
        "settings": {key: value for key, value in vars(settings).items() if key not in ("source", "scratch", "json")},
        "different_pictures": different,
        "machine": {**machine, "versions": {**machine["versions"], **libraries}},
        "bytes_an_image": stored,
        "images_per_second": {kind: over_rounds(values) for kind, values in rates.items()},
        "images_per_core_second": {kind: over_rounds(values) for kind, values in of_core.items()},
        "change_by_jpeg": change,
    }
    publish(report, _text(report), settings.json)


def _copy(source: Path, target: Path, pictures: int) -> int:
    """A folder of one class with so many copies of the pictures under `source`; returns how many differ."""
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not found:
        raise ConfigurationError(f"source={source}: there are no pictures under it")
    for split, count in (("train", pictures), ("validation", 1)):
        (target / split / "one").mkdir(parents=True)
        for i in range(count):
            shutil.copyfile(found[i % len(found)], target / split / "one" / f"{i:06d}{found[i % len(found)].suffix}")
    return min(len(found), pictures)


def _data_sets(settings: CodecBenchmarkSettings, scratch: Path) -> dict[str, DataSet]:
    """The pictures as a pack of either codec, and as they are."""
    photos, image = str(scratch / "photos"), (3, settings.crop, settings.crop)
    data = {}
    for codec in _CODECS:
        prepare(
            PreparationSettings(
                photos,
                str(scratch / codec),
                size=settings.size,
                workers=1,
                strict=True,
                codec=codec,
                quality=settings.quality,
            )
        )
        data[codec] = load_data(DataSettings("pack", str(scratch / codec)), image, 1)
    data["folder"] = load_data(DataSettings("folder", photos, size=settings.size, cache=str(scratch / "c")), image, 1)
    return data


def _rates(
    settings: CodecBenchmarkSettings, data: Mapping[str, DataSet]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Images a second by the clock and by the cores' time, of every kind of data in every round."""
    rates: dict[str, list[float]] = {kind: [] for kind in data}
    of_core: dict[str, list[float]] = {kind: [] for kind in data}
    augmentation = paper_recipe(settings.batch_size).augmentation
    for epoch in range(-1, settings.rounds):  # the first fills the page cache
        for kind, each in data.items():
            loader = Loader(
                each,
                (settings.crop, settings.crop),
                min(settings.batch_size, settings.pictures),
                Share(),
                0,
                augmentation,
                settings=LoaderSettings(settings.threads, read_ahead=2 * settings.threads, drop_behind=False),
            )
            clock, cores = time.perf_counter(), time.process_time()
            images = sum(len(batch.labels) for batch in loader.training(max(epoch, 0)))
            clock, cores = time.perf_counter() - clock, time.process_time() - cores
            if epoch >= 0:
                rates[kind].append(images / clock)
                of_core[kind].append(images / cores)
    return rates, of_core


def _change(raw: Images, jpeg: Images) -> dict[str, float]:
    """What JPEG does to pixels, on the scale of 0..255: mean and 99th percentile of the difference, and PSNR."""
    counts = np.zeros(256, dtype=np.int64)
    images = [np.empty((1, *raw.image_shape), dtype=np.uint8) for _ in range(2)]
    for row in range(len(raw)):
        for split, image in zip((raw, jpeg), images, strict=True):
            split.read(np.array([row]), image)
        counts += np.bincount(np.abs(images[0].astype(np.int16) - images[1]).ravel(), minlength=256)
    levels, part = np.arange(256), counts / counts.sum()
    return {
        "mean_absolute_difference": float(levels @ part),
        "percentile_99": int(np.searchsorted(np.cumsum(part), 0.99)),
        "psnr_db": float(10 * np.log10(255**2 / max(levels**2 @ part, 1e-9))),
    }


def _text(report: Mapping[str, Any]) -> str:
    rows = [["", "kB an image", "images/s", "spread", "images/s of a core's time"]]
    for kind, figures in report["images_per_second"].items():
        stored, of_core = report["bytes_an_image"][kind], report["images_per_core_second"][kind]["median"]
        rows.append(
            [
                kind,
                f"{stored / 1e3:.1f}",
                f"{figures['median']:,.0f}",
                f"{figures['spread']:.0%}",
                f"{of_core:,.0f}",
            ]
        )
    said, change = report["settings"], report["change_by_jpeg"]
    ratio = report["bytes_an_image"]["raw"] / report["bytes_an_image"]["jpeg"]
    return "\n".join(
        [
            machine_text(report["machine"]),
            f"{said['pictures']:,} images of {said['size']}x{said['size']}, {report['different_pictures']:,} differ, "
            f"crops of {said['crop']}x{said['crop']}, batch {said['batch_size']}, {said['threads']} loader threads",
            *aligned(rows),
            f"JPEG of quality {said['quality']}: {ratio:.1f} times smaller; pixels change by "
            f"{change['mean_absolute_difference']:.2f} gray levels in the mean, 99 % of them by at most "
            f"{change['percentile_99']}; PSNR {change['psnr_db']:.1f} dB",
        ]
    )


def main() -> None:
    """Entry point of `benchmarks/codecs.py`; see `conf/benchmark/codecs.yaml` for the keys."""
    run_command("benchmark/codecs", run)


if __name__ == "__main__":
    main()
