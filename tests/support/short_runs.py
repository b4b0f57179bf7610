"""Short training runs in this process, on small images of two classes, with every augmentation of the paper."""

import json
from pathlib import Path
from unittest.mock import patch

from alexnet_mp.common.cli import compose
from alexnet_mp.training import train as command

AUGMENTED = "recipe.augmentation={crop: random, flip: true, shared_by: 1, color: {std: 0.1, eigenvalues: root}}"
KERNELS = {"conv1": 4, "conv2": 8, "conv3": 8, "conv4": 8, "conv5": 8}
NETWORK = [f"network.layers.{layer}.kernels={kernels}" for layer, kernels in KERNELS.items()]
NETWORK += ["network.layers.fc6.units=16", "network.layers.fc7.units=16", "network.classes=2"]
CHOSEN = ["recipe.batch_size=2", "recipe.epochs=2", "recipe.schedule.milestones=[]", AUGMENTED]


def losses(run: Path, *data: str) -> list[dict[str, float]]:
    """Loss and errors of twelve steps on 12 images, in two epochs, and of both validations, as the run notes them."""
    with patch.object(command, "finish"):  # it draws curves
        command.train(
            compose("train", [*data, *NETWORK, *CHOSEN, f"run_dir={run}", "log_every_steps=1", "compile=off"])
        )
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len([line for line in lines if line["kind"] == "train"]) == 12
    kept = ("loss", "top1_error", "top5_error")
    return [{key: line[key] for key in kept if key in line} for line in lines if "loss" in line]
