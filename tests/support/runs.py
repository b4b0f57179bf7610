"""Folders of finished runs and of their evaluations, written without training."""

import json
from pathlib import Path
from typing import Any

import yaml

LAST_EPOCH = 12


def make_run(folder: Path, seed: int = 0, experiment: str = "cifar10_lrn", last: float = 0.2, **summary: Any) -> Path:
    """A finished run of twelve epochs: top-1 error 0.5 at first, 0.3 after ten, and lower after eleven than at last."""
    errors = {1: 0.5, 10: 0.3, 11: last - 0.05, LAST_EPOCH: last}
    lines: list[dict[str, Any]] = [{"kind": "train", "step": 1, "epoch": 1, "loss": 2.3, "learning_rate": 0.01}]
    for epoch, error in errors.items():
        found = {"loss": 1.0, "top1_error": error, "top5_error": error / 10}
        lines.append({"kind": "validation", "step": 10 * epoch, "epoch": epoch, **found})
    configuration = {
        "experiment_name": experiment,
        "recipe": {"name": "quick", "epochs": LAST_EPOCH, "input": {"pixel_divisor": 1, "mean": "center"}},
        "data": {"source": "pack", "path": "packs/pictures"},
        "seed": seed,
        "run_dir": str(folder),
    }
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    whole = {
        "network": "tiny",
        "experiment": experiment,
        "placement": "distributed",
        "world_size": 2,
        "parameters": 1234567,
        "parameters_per_tower": [617284, 617283],
        "epochs": LAST_EPOCH,
        "seconds": 600.0,
        "images_per_second": 100,
        "top1_error": last,
        "top5_error": last / 10,
        "seed": seed,
        "batch_size": 64,
        "precision": "float32",
        "device": "CPU (an abacus)",
        "threads": 1,
        "versions": {"torch": "9.9"},
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "checkpoint": "step-000000120",
        "best_checkpoint": "step-000000110",
        "command": f"torchrun --nproc-per-node=2 launch/train.py experiment={experiment} seed={seed}",
        **summary,
    }
    (folder / "summary.json").write_text(json.dumps(whole))
    return folder


def evaluate(run: Path, name: str, views: int, error: float, checkpoints: list[str], **more: Any) -> None:
    paths = [str(run.absolute() / "checkpoints" / checkpoint) for checkpoint in checkpoints]
    found = {"loss": 1.0, "top1_error": error, "top5_error": error / 10, "images": 5000, "views": views}
    (run / "evaluation" / name).mkdir(parents=True)
    text = json.dumps({**found, "split": "validation", "checkpoints": paths, **more})
    (run / "evaluation" / name / "summary.json").write_text(text)
