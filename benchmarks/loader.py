"""How fast does the loader alone read, crop and mirror images on one core, and does its memory grow with the data set?

python benchmarks/loader.py json=loader.json
python benchmarks/loader.py images=[1000,5000] rounds=1 scratch=/path/to/a/disk

Two packs of random pixels are written to a scratch folder and removed in the end. Read from them, whole epochs at a
time, with the augmentation of the recipe `paper`, by one loader thread, in a process that may use one core:
  warm_random, small and large   in random order, all of the pack being in the page cache
  cold_random, large             in random order, the pack having been dropped from the page cache before
  cold_fixed, large              the same in the order of the pack
and anonymous resident memory (RssAnon) at the last batch of an epoch of each pack, each time in a new process.
"""

import ctypes
import gc
import mmap
import multiprocessing
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

# The figures are of one core; the variables count only if they are set before the libraries are there.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import torch
from random_pack import RANDOM_CLASSES, write_pack

from alexnet_mp.common.cli import run_command
from alexnet_mp.common.schema import NonNegativeInt, OutputFile, PositiveInt, from_mapping
from alexnet_mp.data.dataset import DataSet, Images, Share
from alexnet_mp.data.load import DataSettings, load_data
from alexnet_mp.data.loader import Loader, LoaderSettings, Order
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.performance.benchmark.output import machine_text, machine_values, over_rounds, publish
from alexnet_mp.performance.benchmark.paper_recipe import paper_recipe

_THREADS = 1
_M_MMAP_THRESHOLD = -3  # malloc.h: blocks from this size on are the kernel's again as soon as they are free
_VARIANTS: dict[str, tuple[str, Order]] = {
    "cold_random": ("large", "shuffled"),
    "cold_fixed": ("large", "fixed"),
    "warm_random_large": ("large", "shuffled"),
    "warm_random_small": ("small", "shuffled"),
}


@dataclass(frozen=True)
class LoaderBenchmarkSettings:
    """The keys of `conf/benchmark/loader.yaml`, which says what they mean."""

    images: tuple[PositiveInt, PositiveInt]
    size: PositiveInt
    crop: PositiveInt
    batch_size: PositiveInt
    rounds: PositiveInt
    core: NonNegativeInt | None
    scratch: str | None
    json: OutputFile | None

    def __post_init__(self) -> None:
        small, large = self.images
        if not self.batch_size <= small < large:
            raise ConfigurationError(
                f"images={list(self.images)} must be [SMALL,LARGE] of a batch or more, {self.batch_size}, in this order"
            )
        scratch = Path(self.scratch or tempfile.gettempdir())
        if not scratch.is_dir():
            raise ConfigurationError(f"scratch={scratch}: there is no such folder")
        needed, free = (small + large) * 3 * self.size**2, shutil.disk_usage(scratch).free
        if needed > free:
            raise ConfigurationError(
                f"the packs take {needed:,} bytes and {scratch} has {free:,}; other images or scratch may help"
            )


def run(configuration: Mapping[str, Any]) -> None:
    """Measure, print a line a figure, and write the same numbers as JSON where `json` says."""
    settings = from_mapping(LoaderBenchmarkSettings, configuration, "")
    core, load = settings.core, os.getloadavg()[0]
    if core is None and hasattr(os, "sched_getaffinity"):
        core = max(os.sched_getaffinity(0))
    _pin(core)
    with tempfile.TemporaryDirectory(dir=settings.scratch) as name:
        folders = {pack: Path(name) / pack for pack in ("small", "large")}
        for folder, images in zip(folders.values(), settings.images, strict=True):
            write_pack(folder, images, settings.size)
        measured = _measure(settings, folders, core)
    report = {
        "images": dict(zip(folders, settings.images, strict=True)),
        "size": settings.size,
        "crop": settings.crop,
        "batch_size": settings.batch_size,
        "rounds": settings.rounds,
        "machine": {**machine_values(load), "pinned_to_core": core, "loader_threads": _THREADS},
        **measured,
    }
    publish(report, _text(report), settings.json)


def _load(folder: Path, crop: int) -> DataSet:
    return load_data(DataSettings("pack", str(folder), verify=False), (3, crop, crop), RANDOM_CLASSES)


def _make_loader(data: DataSet, crop: int, batch_size: int, order: Order) -> Loader:
    augmentation = paper_recipe(batch_size).augmentation
    # What stays in the page cache is this benchmark's choice in every variant.
    settings = LoaderSettings(threads=_THREADS, drop_behind=False)
    return Loader(data, (crop, crop), batch_size, Share(), 0, augmentation, order, settings)


def _epoch_rate(loader: Loader, epoch: int) -> float:
    """Images per second over an epoch, from before its order is drawn until its last batch is there."""
    images = 0
    started = time.perf_counter()
    for batch in loader.training(epoch):
        images += len(batch.labels)
    return images / (time.perf_counter() - started)


def _read_all(images: Images) -> None:
    """Bring all images into the page cache."""
    out = np.empty((64, *images.image_shape), dtype=np.uint8)
    for rows in np.array_split(np.arange(len(images)), range(64, len(images), 64)):
        images.read(rows, out[: len(rows)])


def _cached_fraction(folder: Path) -> float | None:
    """Which part of the training shards' pages is in the page cache; None where mincore is not as Linux has it."""
    if platform.system() != "Linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    pages = present = 0
    for path in sorted((folder / "train").glob("[0-9]*.npy")):
        # Private and writable, because ctypes takes no address of a mapping that is read-only; nothing is written.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapping:
            states = (ctypes.c_ubyte * (-(-len(mapping) // mmap.PAGESIZE)))()
            first = ctypes.c_char.from_buffer(mapping)
            failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(len(mapping)), states)
            del first  # a mapping with a view of it cannot be closed
            if failed:
                return None
            pages += len(states)
            present += int((np.ctypeslib.as_array(states) & 1).sum())
    return present / pages


def _anonymous_bytes() -> int | None:
    """RssAnon: resident memory that is not a file's; None where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text("utf-8").splitlines() if status.exists() else []
    found = [int(line.split()[1]) for line in lines if line.startswith("RssAnon:")]
    return found[0] * 1024 if found else None  # the kernel's kB are KiB


def _memory_of_an_epoch(folder: Path, crop: int, batch_size: int, core: int | None) -> tuple[int | None, int | None]:
    """Anonymous memory before a random epoch and at its last batch; for a new process.

    By then order and draws are still there and nothing is being read, so that it does not depend on the moment.
    """
    _pin(core)
    if platform.system() == "Linux":
        # Or glibc would keep some blocks that are free, each as large as a batch, and others not.
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 16)
    data = _load(folder, crop)
    loader = _make_loader(data, crop, batch_size, "shuffled")
    gc.collect()
    before, at_the_end = _anonymous_bytes(), None
    for step, _ in enumerate(loader.training(0), start=1):
        if step == loader.steps_per_epoch:
            gc.collect()
            at_the_end = _anonymous_bytes()
    return before, at_the_end


def _context() -> multiprocessing.context.BaseContext:
    """Processes without this one's memory. A fork server imports the library once for all, where there is one."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _pin(core: int | None) -> None:
    torch.set_num_threads(1)
    if core is not None:
        os.sched_setaffinity(0, {core})


def _measure(settings: LoaderBenchmarkSettings, folders: dict[str, Path], core: int | None) -> dict[str, Any]:
    """The variants in turns, round by round; then the memory."""
    loaders, data = {}, {name: _load(folder, settings.crop) for name, folder in folders.items()}
    for variant, (pack, order) in _VARIANTS.items():
        loaders[variant] = _make_loader(data[pack], settings.crop, settings.batch_size, order)
    rates: dict[str, list[float]] = {name: [] for name in _VARIANTS}
    cached: dict[str, list[float | None]] = {name: [] for name in _VARIANTS}
    for epoch in range(settings.rounds):
        for variant, (pack, _) in _VARIANTS.items():
            train = data[pack].splits["train"]
            if variant.startswith("cold"):
                train.forget(np.arange(len(train)))
            else:
                _read_all(train)
            cached[variant].append(_cached_fraction(folders[pack]))
            rates[variant].append(_epoch_rate(loaders[variant], epoch))
            print(f"round {epoch + 1}, {variant}: {rates[variant][-1]:,.0f} images/s", flush=True)
    return {
        "images_per_second": {name: over_rounds(values) for name, values in rates.items()},
        "in_page_cache_before": cached,
        "memory": _measure_memory(settings, folders, core),
    }


def _measure_memory(
    settings: LoaderBenchmarkSettings, folders: dict[str, Path], core: int | None
) -> dict[str, Any] | None:
    """Of an epoch of either pack, in turns, each in a new process; None where the system does not tell."""
    held: dict[str, list[float]] = {name: [] for name in folders}
    added: dict[str, list[float]] = {name: [] for name in folders}
    with ProcessPoolExecutor(1, _context(), max_tasks_per_child=1) as pool:
        for _ in range(settings.rounds):
            for name, folder in folders.items():
                task = pool.submit(_memory_of_an_epoch, folder, settings.crop, settings.batch_size, core)
                before, at_the_end = task.result()
                if before is None or at_the_end is None:
                    return None
                held[name].append(at_the_end / 1e6)
                added[name].append((at_the_end - before) / 1e6)
    growth = [large - small for small, large in zip(held["small"], held["large"], strict=True)]
    return {
        "held_mb": {name: over_rounds(values) for name, values in held.items()},
        "added_by_the_epoch_mb": {name: over_rounds(values) for name, values in added.items()},
        "growth_mb": {"median": median(growth), "least": min(growth), "most": max(growth), "rounds": growth},
    }


def _text(report: Mapping[str, Any]) -> str:
    core, packs = report["machine"]["pinned_to_core"], report["images"]
    lines = [
        machine_text(report["machine"]),
        f"one loader thread, {'not pinned to a core' if core is None else f'pinned to core {core}'}; packs of "
        f"{packs['small']:,} and {packs['large']:,} images of {report['size']}x{report['size']}, crops of "
        f"{report['crop']}x{report['crop']}, batch {report['batch_size']}; rounds: {report['rounds']}",
    ]
    for name, values in report["images_per_second"].items():
        known = [part for part in report["in_page_cache_before"][name] if part is not None]
        part = f"{median(known):.1%}" if known else "an unknown part"
        lines.append(
            f"{name}: {values['median']:,.0f} images/s, spread {values['spread']:.0%}; {part} in the page cache before"
        )
    if report["memory"]:
        growth, held = report["memory"]["growth_mb"], report["memory"]["held_mb"]
        lines.append(
            f"anonymous memory at an epoch's end: {held['small']['median']:.1f} MB with {packs['small']:,} images, "
            f"and with {packs['large']:,} {growth['median']:+.2f} MB more ({growth['least']:+.2f} to "
            f"{growth['most']:+.2f} over the rounds)"
        )
    lines.append("images/s: median over the rounds; spread: (max - min) / median. A disk may have a cache of its own.")
    return "\n".join(lines)


def main() -> None:
    """Entry point of `benchmarks/loader.py`; see `conf/benchmark/loader.yaml` for the keys."""
    run_command("benchmark/loader", run)


if __name__ == "__main__":
    main()
