"""A training step never makes the host wait for a GPU, and launches few kernels, however large the batch."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from alexnet_mp.common.cli import compose
from alexnet_mp.data.augmentation import Views
from alexnet_mp.data.dataset import Statistics
from alexnet_mp.data.preprocessing import Batch, Preprocessing
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.parallel.placement import Placement
from alexnet_mp.training import trainer
from alexnet_mp.training.config import parse_train_settings
from alexnet_mp.training.resume import begin
from alexnet_mp.training.trainer import Run, Trainer
from tests.support.step_audit import Audit, audited_step


def audit_of(monkeypatch, images: int, *overrides: str, prepare=lambda: None) -> Audit:
    """The audit of a run's second step with both towers in one process, in which nothing is computed."""
    settings = parse_train_settings(compose("train", [*overrides, f"recipe.batch_size={images}", "device=cpu"]))
    network, cpu = settings.network, torch.device("cpu")
    mesh = Mesh(Placement("simulated", network.towers, dict.fromkeys(range(network.towers), cpu)), None)
    size = network.image[1] + 32
    statistics = Statistics(np.zeros((size, size, 3)), np.ones(3), np.eye(3))
    color = settings.recipe.augmentation.color
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = TowerModel(network, mesh.placement, mesh.link(), settings.seed, settings.dtype)
        preprocess = Preprocessing(statistics, network.image[1:], settings.recipe.input, settings.dtype, color)
        quiet = SimpleNamespace(is_due=lambda step: False, has_failed=lambda: False, received=None)
        run = Run(
            settings, mesh, SimpleNamespace(steps_per_epoch=99), preprocess, begin(model, settings), quiet, quiet, quiet
        )
        training = Trainer(run)
        training._reads_every_loss, training._log_every = False, trainer.LOG_EVERY_ON_GPUS  # as on GPUs
        batch = Batch(
            torch.zeros(images, *network.image[1:], 3, dtype=torch.uint8),
            torch.zeros(images, dtype=torch.int64),
            Views(*torch.zeros(2, images, dtype=torch.int64), torch.zeros(images, dtype=torch.bool)),
            torch.zeros(images, 3),
        )
        training.step(batch)  # makes the momentum buffers, and what stays for a whole run
        prepare()
        with audited_step(monkeypatch) as audit:
            training.step(batch)
    return audit


@pytest.mark.parametrize("experiment", ["imagenet_paper", "imagenet_original_2012"])
def test_a_step_never_waits_and_has_at_most_250_kernels_whatever_the_batch(experiment, monkeypatch):
    audits = [audit_of(monkeypatch, images, f"experiment={experiment}") for images in (32, 128, 512)]
    assert all(audit.banned == [] for audit in audits)
    kernels = {audit.kernels for audit in audits}
    print(audits[0].operations)
    assert len(kernels) == 1 and kernels.pop() <= 250, audits[0].operations
