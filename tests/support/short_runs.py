"""Short training runs in this process, on small images of two classes, with every augmentation of the paper."""

import json
from pathlib import Path

from alexnet_mp.common.cli import compose
from alexnet_mp.training.train import train

AUGMENTED = "recipe.augmentation={crop: random, flip: true, shared_by: 1, color: {std: 0.1, eigenvalues: root}}"


def losses(run: Path, *data: str) -> list[dict[str, float]]:
    """Loss and errors of twelve steps on 12 images and of four validations, as the run notes them."""
    chosen = ["network.classes=2", "recipe.batch_size=4", "recipe.epochs=4", "recipe.schedule.milestones=[]"]
    train(compose("train", [*data, *chosen, AUGMENTED, f"run_dir={run}", "log_every_steps=1", "compile=off"]))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = ("loss", "top1_error", "top5_error")
    found = [{key: line[key] for key in kept if key in line} for line in lines if "loss" in line]
    assert len([line for line in lines if line["kind"] == "train"]) == 12
    return found
