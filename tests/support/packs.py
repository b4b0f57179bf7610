"""Small packs for tests, written without the library, so that a test can damage them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 4
SHARDS = {"train": (3, 1, 4), "validation": (2,)}
LABELS = {"train": [0, 1, 2, 2, 1, 0, 0, 1], "validation": [2, 0]}
Manifest = dict[str, Any]


def entry(folder: Path, name: str, array: np.ndarray[Any, Any], **more: int) -> dict[str, Any]:
    """Write an array as NumPy does and describe it as a manifest does."""
    (folder / name).parent.mkdir(exist_ok=True)
    np.save(folder / name, array)
    return {"file": name, **more, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}


def pixels(split: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The images of a split, all different: [count, SIZE, SIZE, 3]."""
    rng = np.random.default_rng(len(split))
    return rng.integers(0, 256, (sum(SHARDS[split]), SIZE, SIZE, 3), dtype=np.uint8)


def write_pack(folder: Path) -> Manifest:
    """A pack that owes nothing to the code under test."""
    splits = {}
    for split, counts in SHARDS.items():
        parts = np.split(pixels(split), np.cumsum(counts)[:-1])
        splits[split] = {
            "count": sum(counts),
            "labels": entry(folder, f"{split}/labels.npy", np.array(LABELS[split], dtype=np.int64)),
            "shards": [entry(folder, f"{split}/{i:05d}.npy", p, count=len(p)) for i, p in enumerate(parts)],
        }
    manifest = {
        "format": "alexnet_mp pack",
        "format_version": 2,
        "size": SIZE,
        "class_names": ["cat", "dog", "owl"],
        "splits": splits,
        "mean_image": entry(folder, "mean_image.npy", pixels("train").mean(axis=0)),
        "color": {"eigenvalues": [3.0, 2.0, 1], "eigenvectors": [[0, 1, 0], [1, 0, 0], [0, 0, 1]]},
        "skipped": [{"split": "train", "name": "train/cat/x.jpg", "reason": "an empty file"}],
        "settings": {"seed": 0, "anything": [None, {"deep": True}]},
    }
    write_manifest(folder, manifest)
    return manifest


def write_manifest(folder: Path, manifest: object) -> None:
    (folder / "manifest.json").write_text(json.dumps(manifest))
