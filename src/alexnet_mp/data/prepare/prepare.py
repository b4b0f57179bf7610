"""Makes a pack: lists the source, plans the shards, makes those that are missing, and writes the manifest last."""

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from tqdm import tqdm

from alexnet_mp.common.host import usable_cores
from alexnet_mp.common.rng import keyed_generator
from alexnet_mp.data.manifest import (
    FLOAT64,
    FORMAT,
    FORMAT_VERSION,
    INT64,
    Manifest,
    ShardEntry,
    Skipped,
    SplitEntry,
)
from alexnet_mp.data.prepare.decode import RULE
from alexnet_mp.data.prepare.listing import Listing
from alexnet_mp.data.prepare.repeats import find_repeated
from alexnet_mp.data.prepare.settings import PreparationSettings
from alexnet_mp.data.prepare.shards import ShardResult, ShardTask, make_shards
from alexnet_mp.data.prepare.sources.known import list_source
from alexnet_mp.data.prepare.split import split_training_pictures
from alexnet_mp.data.prepare.statistics import color, mean_image, no_sums
from alexnet_mp.data.prepare.workspace import Workspace, check_disk, read_sums, write_array
from alexnet_mp.errors import ConfigurationError, explained

SHARD_BYTES = 256 * 10**6
LEAST_SHARDS = 32  # of a split, so that a small set keeps many processes busy too
_SEALERS = 4  # threads that wait for the disk

Results = dict[tuple[str, int], ShardResult]  # by split and number


@dataclass(frozen=True)
class PackSummary:
    """What a preparation made; `images_decoded` and `seconds` are of this start alone."""

    manifest: Manifest
    images_decoded: int
    shards_found: int
    seconds: float


def prepare(settings: PreparationSettings, tell: Callable[[str], object] = lambda seen: None) -> PackSummary:
    """Make the pack `settings.out` of the pictures in `settings.source`, or go on from what an earlier start finished.

    Before the first picture is decoded, `tell` is given what the source is, in one line or more.

    The pack is the same, byte for byte, whatever the number of workers and of starts. Raises ConfigurationError if
    the source, the target or the disk do not allow it, or with `strict` for the first picture that cannot be decoded.
    """
    started = time.perf_counter()
    source, out = Path(settings.source), Path(settings.out)
    if source.exists() and out.resolve().is_relative_to(source.resolve()):
        raise ConfigurationError(f"out={out} lies in source={source}; give a folder elsewhere")
    with Workspace(out) as workspace:
        listing = list_source(settings.source, settings.kind, workspace.folder)
        if settings.split is not None:
            listing = split_training_pictures(listing, settings.split, settings.seed)
        tell(seen_text(listing, settings.source))
        tasks = plan_shards(listing, settings, workspace.out, workspace.folder)
        with explained(f"cannot write out={out}"):
            workspace.adopt(preparation_plan(listing, settings))
            results, decoded, found = _make_all(tasks, settings, workspace)
            manifest = _write_rest(listing, settings, tasks, results, workspace)
    return PackSummary(manifest, decoded, found, time.perf_counter() - started)


def seen_text(listing: Listing, source: str) -> str:
    """What a source is, and what of it is left out, for a terminal."""
    counts = ", ".join(f"{split} {len(pictures):,}" for split, pictures in listing.splits.items())
    lines = [f"source={source} is of kind {listing.kind}: pictures of {len(listing.class_names):,} classes, {counts}"]
    lines += [f"left out: {each}" for each in listing.left_out]
    if set(listing.splits) == {"train"}:
        lines.append("it has no pictures to validate on; split=0.1 keeps a tenth of the training pictures for that")
    return "\n".join(lines)


def plan_shards(listing: Listing, settings: PreparationSettings, out: Path, scratch: Path) -> list[ShardTask]:
    """Every split's pictures, shuffled once by the seed (run #145 visited them in such an order), cut into shards."""
    tasks = []
    for split, pictures in listing.splits.items():
        if not pictures:
            raise ConfigurationError(f"source={settings.source} has no pictures for the split {split}")
        generator = keyed_generator(settings.seed, "pack", split)
        order = torch.randperm(len(pictures), generator=generator).tolist()
        each = settings.images_per_shard or images_per_shard(len(pictures), settings.size)
        for number, first in enumerate(range(0, len(pictures), each)):
            tasks.append(
                ShardTask(
                    split=split,
                    number=number,
                    file=out / split / f"{number:05d}.{'npy' if settings.codec == 'raw' else 'jpegs'}",
                    sums=scratch / f"{split}-{number:05d}.npy" if split == "train" else None,
                    pictures=tuple(pictures[i] for i in order[first : first + each]),
                    encoding=listing.encoding,
                    size=settings.size,
                    max_pixels=settings.max_pixels,
                    strict=settings.strict,
                    quality=settings.quality if settings.codec == "jpeg" else None,
                )
            )
    return tasks


def images_per_shard(images: int, size: int) -> int:
    """About 256 MB a shard, and less if a split would have fewer than 32 of them."""
    return max(1, min(SHARD_BYTES // (3 * size**2), -(-images // LEAST_SHARDS)))


def preparation_plan(listing: Listing, settings: PreparationSettings) -> dict[str, Any]:
    """What two starts must have in common to go on with each other's shards."""
    return {
        "source": settings.source,
        "kind": listing.kind,
        **{key: getattr(settings, key) for key in ("size", "seed", "images_per_shard", "max_pixels", "split", "codec")},
        "quality": settings.quality if settings.codec == "jpeg" else None,
        "rule": RULE,
        "pillow": PIL.__version__,
        "pictures": {split: len(pictures) for split, pictures in listing.splits.items()},
        "pictures_sha256": _digest(listing),
    }


def _digest(listing: Listing) -> str:
    digest = hashlib.sha256()
    for split, pictures in listing.splits.items():
        for p in pictures:
            _, offset, length, modified, _ = p.extent
            line = f"{split}\0{p.name}\0{p.label}\0{offset}\0{length}\0{modified}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _make_all(tasks: list[ShardTask], settings: PreparationSettings, workspace: Workspace) -> tuple[Results, int, int]:
    """Every shard's result, found or made; the images decoded; the number of shards found."""
    results: Results = {}
    missing = []
    for task in tasks:
        task.file.parent.mkdir(exist_ok=True)
        result = workspace.finished(task)
        if result is None:
            missing.append(task)
            continue
        if settings.strict and result.skipped:
            name, reason = result.skipped[0]
            raise ConfigurationError(f"{name}: {reason}; strict=false skips such pictures")
        results[task.split, task.number] = result
    check_disk(workspace.out, missing)
    found = len(results)
    images = [sum(len(task.pictures) for task in each) for each in (tasks, missing)]
    bar = tqdm(total=images[0], initial=images[0] - images[1], unit="images", desc="preparing", disable=None)
    with bar, ThreadPoolExecutor(_SEALERS) as sealers:
        seals: list[Future[None]] = []
        for task, result in make_shards(missing, settings.workers or usable_cores()):
            results[task.split, task.number] = result
            # The disk may take longer than the decoding; workers do not wait for it.
            seals.append(sealers.submit(workspace.seal, task, result))
            for seal in [seal for seal in seals if seal.done()]:
                seal.result()  # raises what went wrong, a full disk for example
                seals.remove(seal)
            bar.update(len(task.pictures))
        for seal in seals:
            seal.result()
    return results, images[1], found


def _check_classes(listing: Listing, labels: list[int], skipped: list[Skipped]) -> None:
    """Raise ConfigurationError for a class none of whose training pictures can be decoded."""
    lost = set(range(len(listing.class_names))) - set(labels)
    if lost:
        first = next(picture.name for picture in listing.splits["train"] if picture.label == min(lost))
        reason = next(each.reason for each in skipped if each.split == "train" and each.name == first)
        name = listing.class_names[min(lost)]
        raise ConfigurationError(f"no training picture of class {name} can be decoded; the first: {first}: {reason}")


def _write_rest(
    listing: Listing, settings: PreparationSettings, tasks: list[ShardTask], results: Results, workspace: Workspace
) -> Manifest:
    """Labels, mean image and, at the very end, the manifest."""
    out = workspace.out
    splits: dict[str, SplitEntry] = {}
    skipped = list(listing.skipped)
    sums = no_sums(settings.size, np.uint64)
    for split in listing.splits:
        shards = []
        labels: list[int] = []
        lengths: list[int] = []
        for task in (task for task in tasks if task.split == split):
            result = results[split, task.number]
            skipped += [Skipped(split, name, reason) for name, reason in result.skipped]
            labels += result.labels
            lengths += result.lengths
            if result.count:
                shards.append(ShardEntry(f"{split}/{task.file.name}", result.count, result.sha256))
            else:
                task.file.unlink(missing_ok=True)
            if task.sums is not None:
                sums.add(read_sums(task.sums, settings.size), result.products)
        if not labels:
            raise ConfigurationError(
                f"none of the {len(listing.splits[split])} pictures of {split} can be decoded; the first: "
                f"{next(f'{s.name}: {s.reason}' for s in skipped if s.split == split)}"
            )
        entry = write_array(out, f"{split}/labels.npy", INT64, np.array(labels, dtype=np.int64))
        if split == "train":
            _check_classes(listing, labels, skipped)
        of_images = write_array(out, f"{split}/lengths.npy", INT64, np.array(lengths)) if lengths else None
        splits[split] = SplitEntry(len(labels), entry, tuple(shards), of_images)
    count = splits["train"].count
    manifest = Manifest(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        size=settings.size,
        class_names=listing.class_names,
        splits=splits,
        mean_image=write_array(out, "mean_image.npy", FLOAT64, mean_image(sums, count)),
        color=color(sums, count),
        skipped=tuple(sorted(skipped, key=lambda each: (each.split, each.name))),
        settings={**preparation_plan(listing, settings), "strict": settings.strict, "left_out": list(listing.left_out)},
        class_words=dict(listing.class_words),
        repeated=find_repeated(tasks, results),
        codec=settings.codec,
        quality=settings.quality if settings.codec == "jpeg" else None,
    )
    workspace.complete(manifest)
    return manifest
