"""How fast does the loader alone read, crop and mirror images on one core, and does its memory grow with the data set?

python benchmarks/loader.py --out loader.json
python benchmarks/loader.py --images 1000 5000 --rounds 1 --scratch /path/to/a/disk

Two packs of random pixels, of the first and the second number of --images, are written under --scratch (20,000 images
of 256x256 take 3.9 GB) and removed in the end. Read from them, whole epochs at a time, with the augmentation of the
recipe `paper`, by one loader thread, in a process that may use one core:
  warm_random, small and large   in random order, all of the pack being in the page cache
  cold_random, large             in random order, the pack having been dropped from the page cache before
  cold_fixed, large              the same in the order of the pack
and anonymous resident memory (RssAnon) at the last batch of an epoch of each pack, each time in a new process.
"""

import argparse
import ctypes
import gc
import json
import mmap
import multiprocessing
import os
import platform
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

# The figures are of one core; the variables count only when set before the libraries are there.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import torch

from alexnet_mp.common.cli import compose
from alexnet_mp.common.host import device_name, versions
from alexnet_mp.data.dataset import DataSet, Images, Share
from alexnet_mp.data.load import DataSettings, load_data
from alexnet_mp.data.loader import Loader, LoaderSettings, Order
from alexnet_mp.performance.benchmark.random_pack import CLASSES, write_pack
from alexnet_mp.training.config import parse_train_settings

THREADS = 1
M_MMAP_THRESHOLD = -3  # malloc.h: blocks from this size on are the kernel's again as soon as they are free
VARIANTS: dict[str, tuple[str, Order]] = {
    "cold_random": ("large", "shuffled"),
    "cold_fixed": ("large", "fixed"),
    "warm_random_large": ("large", "shuffled"),
    "warm_random_small": ("small", "shuffled"),
}


def load(folder: Path, crop: int) -> DataSet:
    return load_data(DataSettings("pack", str(folder), verify=False), (3, crop, crop), CLASSES)


def make_loader(data: DataSet, crop: int, batch_size: int, order: Order) -> Loader:
    recipe = parse_train_settings(compose("train", ["recipe=paper", "network=paper"])).recipe
    # What stays in the page cache is this script's choice in every variant.
    settings = LoaderSettings(threads=THREADS, drop_behind=False)
    return Loader(data, (crop, crop), batch_size, Share(), 0, recipe.augmentation, order, settings)


def epoch_rate(loader: Loader, epoch: int) -> float:
    """Images per second over an epoch, from before its order is drawn until its last batch is there."""
    images = 0
    started = time.perf_counter()
    for batch in loader.training(epoch):
        images += len(batch.labels)
    return images / (time.perf_counter() - started)


def read_all(images: Images) -> None:
    """Bring all images into the page cache."""
    out = np.empty((64, *images.image_shape), dtype=np.uint8)
    for rows in np.array_split(np.arange(len(images)), range(64, len(images), 64)):
        images.read(rows, out[: len(rows)])


def cached_fraction(folder: Path) -> float | None:
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
            present += int((np.frombuffer(states, dtype=np.uint8) & 1).sum())
    return present / pages


def anonymous_bytes() -> int | None:
    """RssAnon: resident memory that is not a file's; None where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [int(line.split()[1]) for line in lines if line.startswith("RssAnon:")]
    return found[0] * 1024 if found else None  # the kernel's kB are KiB


def memory_of_an_epoch(folder: Path, crop: int, batch_size: int, core: int | None) -> tuple[int | None, int | None]:
    """Anonymous memory before a random epoch and at its last batch; for a new process.

    By then order and draws are still there and nothing is being read, so that it does not depend on the moment.
    """
    pin(core)
    if platform.system() == "Linux":
        # Or glibc would keep some blocks that are free, each as large as a batch, and others not.
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)
    data = load(folder, crop)
    loader = make_loader(data, crop, batch_size, "shuffled")
    gc.collect()
    before, at_the_end = anonymous_bytes(), None
    for step, _ in enumerate(loader.training(0), start=1):
        if step == loader.steps_per_epoch:
            gc.collect()
            at_the_end = anonymous_bytes()
    return before, at_the_end


def _context() -> multiprocessing.context.BaseContext:
    """Processes without this one's memory. A fork server imports the library once for all, where there is one."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([load_data.__module__, Loader.__module__, parse_train_settings.__module__])
    return context


def pin(core: int | None) -> None:
    torch.set_num_threads(1)
    if core is not None:
        os.sched_setaffinity(0, {core})


def measure(arguments: argparse.Namespace, folders: dict[str, Path], core: int | None) -> dict[str, Any]:
    """The variants in turns, round by round; then the memory."""
    loaders, data = {}, {name: load(folder, arguments.crop) for name, folder in folders.items()}
    for variant, (pack, order) in VARIANTS.items():
        loaders[variant] = make_loader(data[pack], arguments.crop, arguments.batch_size, order)
    rates: dict[str, list[float]] = {name: [] for name in VARIANTS}
    cached: dict[str, list[float | None]] = {name: [] for name in VARIANTS}
    for epoch in range(arguments.rounds):
        for variant, (pack, _) in VARIANTS.items():
            train = data[pack].splits["train"]
            if variant.startswith("cold"):
                train.forget(np.arange(len(train)))
            else:
                read_all(train)
            cached[variant].append(cached_fraction(folders[pack]))
            rates[variant].append(epoch_rate(loaders[variant], epoch))
            print(f"round {epoch + 1}, {variant}: {rates[variant][-1]:,.0f} images/s", flush=True)
    return {
        "images_per_second": {name: spread(values) for name, values in rates.items()},
        "in_page_cache_before": cached,
        "memory": measure_memory(arguments, folders, core),
    }


def measure_memory(arguments: argparse.Namespace, folders: dict[str, Path], core: int | None) -> dict[str, Any] | None:
    """Of an epoch of either pack, in turns, each in a new process; None where the system does not tell."""
    held: dict[str, list[float]] = {name: [] for name in folders}
    added: dict[str, list[float]] = {name: [] for name in folders}
    with ProcessPoolExecutor(1, _context(), max_tasks_per_child=1) as pool:
        for _ in range(arguments.rounds):
            for name, folder in folders.items():
                task = pool.submit(memory_of_an_epoch, folder, arguments.crop, arguments.batch_size, core)
                before, at_the_end = task.result()
                if before is None or at_the_end is None:
                    return None
                held[name].append(at_the_end / 1e6)
                added[name].append((at_the_end - before) / 1e6)
    growth = [large - small for small, large in zip(held["small"], held["large"], strict=True)]
    return {
        "held_mb": {name: spread(values) for name, values in held.items()},
        "added_by_the_epoch_mb": {name: spread(values) for name, values in added.items()},
        "growth_mb": {"median": statistics.median(growth), "least": min(growth), "most": max(growth), "rounds": growth},
    }


def spread(values: list[float]) -> dict[str, Any]:
    """The median over the rounds, and (max - min) / median."""
    median = statistics.median(values)
    return {"median": median, "spread": (max(values) - min(values)) / median, "rounds": values}


def machine(core: int | None, load: float) -> dict[str, Any]:
    return {
        "device": device_name(torch.device("cpu")),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "pinned_to_core": core,
        "loader_threads": THREADS,
        "torch_threads": torch.get_num_threads(),
        "load_average_before": load,
        "versions": versions(),
    }


def print_report(report: dict[str, Any]) -> None:
    about = report["machine"]
    software = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    small, large = (f"{report['images'][name]:,}" for name in ("small", "large"))
    where = "not pinned to a core" if about["pinned_to_core"] is None else f"pinned to core {about['pinned_to_core']}"
    print(f"{about['device']}; {about['platform']}; {software}")
    print(
        f"{about['loader_threads']} loader thread, {about['torch_threads']} torch thread, {where}, load average before "
        f"the start {about['load_average_before']:.1f}"
    )
    print(
        f"packs of {small} and {large} images of {report['size']}x{report['size']}, crops of "
        f"{report['crop']}x{report['crop']}, batch {report['batch_size']}; rounds: {report['rounds']}"
    )
    for name, values in report["images_per_second"].items():
        known = [part for part in report["in_page_cache_before"][name] if part is not None]
        part = f"{statistics.median(known):.1%}" if known else "an unknown part"
        print(
            f"{name}: {values['median']:,.0f} images/s, spread {values['spread']:.0%}; {part} in the page cache before"
        )
    if report["memory"]:
        growth, held = report["memory"]["growth_mb"], report["memory"]["held_mb"]
        print(
            f"anonymous memory at the end of an epoch: {held['small']['median']:.1f} MB with {small} images, and with "
            f"{large} {growth['median']:+.2f} MB more ({growth['least']:+.2f} to {growth['most']:+.2f} over the rounds)"
        )
    print("images/s: median over the rounds; spread: (max - min) / median. A disk may have a cache of its own.")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs=2, default=[1000, 20_000], metavar=("SMALL", "LARGE"))
    parser.add_argument("--size", type=int, default=256, help="height and width of the images")
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--core", type=int, help="the core to use; default: the last that this process may use")
    parser.add_argument("--scratch", type=Path, help="where the packs are written; default: the system's")
    parser.add_argument("--out", type=Path, help="also write the numbers to this file, as JSON")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or not arguments.batch_size <= arguments.images[0] < arguments.images[1]:
        parser.error("it takes a round or more, and --images SMALL LARGE of a batch or more, in this order")
    scratch = arguments.scratch or Path(tempfile.gettempdir())
    needed, free = sum(arguments.images) * 3 * arguments.size**2, shutil.disk_usage(scratch).free
    if needed > free:
        parser.error(f"the packs take {needed:,} bytes and {scratch} has {free:,}; --images or --scratch may help")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    core, load_average = arguments.core, os.getloadavg()[0]
    if core is None and hasattr(os, "sched_getaffinity"):
        core = max(os.sched_getaffinity(0))
    pin(core)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as name:
        folders = {pack: Path(name) / pack for pack in ("small", "large")}
        for folder, images in zip(folders.values(), arguments.images, strict=True):
            write_pack(folder, images, arguments.size)
        measured = measure(arguments, folders, core)
    report = {
        "images": dict(zip(folders, arguments.images, strict=True)),
        "size": arguments.size,
        "crop": arguments.crop,
        "batch_size": arguments.batch_size,
        "rounds": arguments.rounds,
        "machine": machine(core, load_average),
        **measured,
    }
    print_report(report)
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
