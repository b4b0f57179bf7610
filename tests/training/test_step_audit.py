"""A training step never makes the host wait for a GPU, and launches few kernels, however large the batch."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from alexnet_mp.common.cli import compose
from alexnet_mp.data import preprocessing
from alexnet_mp.data.augmentation import Views
from alexnet_mp.data.dataset import Statistics
from alexnet_mp.data.preprocessing import Batch, Preprocessing
from alexnet_mp.model.dropout_masks import DropoutMasks
from alexnet_mp.model.layers.lrn import Blocks
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.parallel.placement import Placement
from alexnet_mp.training import trainer
from alexnet_mp.training.config import parse_train_settings
from alexnet_mp.training.loss import LossOnEveryTower
from alexnet_mp.training.optimizer import PaperSGD
from alexnet_mp.training.resume import begin
from alexnet_mp.training.train import train
from alexnet_mp.training.trainer import Run, Trainer
from tests.support.processes import as_under_torchrun, run_processes
from tests.support.step_audit import Audit, audited_step

CPU = torch.device("cpu")
PAPER = "experiment=imagenet_paper"


def audit_of_a_step(
    monkeypatch, images: int, *overrides: str, devices: tuple[str, str] = ("cpu", "cpu"), computed: bool = False
) -> Audit:
    """The audit of a run's second step with both towers in one process, in which nothing is computed unless asked."""
    settings = parse_train_settings(compose("train", [*overrides, f"recipe.batch_size={images}", "device=cpu"]))
    network = settings.network
    kind = "simulated" if len(set(devices)) == 1 else "two_devices"
    mesh = Mesh(Placement(kind, network.towers, dict(enumerate(map(torch.device, devices)))), None)
    channels, height, width = network.image
    statistics = Statistics(np.zeros((height + 32, width + 32, channels)), np.ones(channels), np.eye(channels))
    color = settings.recipe.augmentation.color
    with nullcontext() if computed else FakeTensorMode(allow_non_fake_inputs=True):
        model = TowerModel(network, mesh.placement, mesh.link(), settings.seed, settings.dtype)
        preprocess = Preprocessing(statistics, network.image[1:], settings.recipe.input, settings.dtype, color)
        state, loader = begin(model, settings), SimpleNamespace(steps_per_epoch=99)
        quiet = SimpleNamespace(is_due=lambda step: False, has_failed=lambda: False, received=None)
        training = Trainer(Run(settings, mesh, loader, preprocess, state, quiet, quiet, quiet))
        training._reads_every_loss, training._log_every = False, trainer.LOG_EVERY_ON_GPUS  # as on GPUs
        batch = Batch(
            torch.zeros(images, height, width, channels, dtype=torch.uint8),
            torch.zeros(images, dtype=torch.int64),
            Views(*torch.zeros(2, images, dtype=torch.int64), torch.zeros(images, dtype=torch.bool)),
            torch.zeros(images, 3) if color else None,
        )
        with audited_step(monkeypatch):
            training.step(batch)  # makes the momentum, and what else stays for a whole run
        with audited_step(monkeypatch) as audit:
            training.step(batch)
    return audit


def test_a_step_never_waits_and_launches_at_most_250_kernels_whatever_the_batch(monkeypatch):
    audits = [audit_of_a_step(monkeypatch, images, PAPER) for images in (32, 128, 512)]
    assert [audit.banned for audit in audits] == [[], [], []]
    assert [audit.kernels for audit in audits] == 3 * [audits[0].kernels]
    assert audits[0].kernels <= 250, audits[0].operations


def test_a_step_of_the_original_network_never_waits_and_has_28_kernels_more_for_its_spatial_norm(monkeypatch):
    audit = audit_of_a_step(monkeypatch, 128, "experiment=imagenet_original_2012")
    assert audit.banned == []
    assert audit.kernels <= 250 + 28, audit.operations


def test_a_step_of_two_devices_never_waits(monkeypatch):
    audit = audit_of_a_step(monkeypatch, 32, PAPER, devices=("cpu:0", "cpu:1"))
    assert audit.banned == []
    assert audit.uploads == 2 * 7  # on each device pixels, the three of the views, color noise, and labels twice


def audit_of_the_third_step(folder: str, *overrides: str) -> list[str]:
    """Train the digits for an epoch; the banned calls of the third step, its loader's batch included."""
    patch, banned, number = pytest.MonkeyPatch(), [], 0
    original = Trainer.step

    def step(self, batch):
        nonlocal number
        number += 1
        if number != 3:
            return original(self, batch)
        self._reads_every_loss = False
        with audited_step(patch) as audit:
            agreed = original(self, batch)
        self._reads_every_loss = True
        banned.extend(audit.banned)
        return agreed

    with patch.context() as patched, as_under_torchrun():
        patched.setattr(Trainer, "step", step)
        configuration = ["recipe.epochs=1", "device=cpu", "log_every_steps=20", f"run_dir={folder}", *overrides]
        train(compose("train", configuration))
    assert number >= 3
    return banned


@pytest.mark.parametrize(("processes", "placement"), [(1, "simulated"), (2, "distributed"), (2, "simulated")])
def test_a_real_step_never_waits(processes, placement, tmp_path):
    arguments = str(tmp_path / "run"), f"placement={placement}", "network.layers.fc6.units=16"
    assert run_processes(processes, audit_of_the_third_step, *arguments) == processes * [[]]


def reads_the_loss(patch) -> None:
    forward = LossOnEveryTower.forward

    def reading(self, *arguments):
        losses = forward(self, *arguments)
        assert losses[0] > 0
        return losses

    patch.setattr(LossOnEveryTower, "forward", reading)


def uploads_the_loss_weight(patch) -> None:
    forward = LossOnEveryTower.forward
    patch.setattr(
        LossOnEveryTower,
        "forward",
        lambda self, *arguments: [each * torch.tensor(1.0, device=CPU) for each in forward(self, *arguments)],
    )


def makes_a_tensor_of_a_number_in_the_lrn(patch) -> None:
    denominators = Blocks._denominators

    def with_a_new_tensor(self, x):
        self._share = x.new_tensor(2.0)
        return denominators(self, x)

    patch.setattr(Blocks, "_denominators", with_a_new_tensor)


def moves_masks_to_the_device(patch) -> None:
    draw = DropoutMasks.draw
    patch.setattr(DropoutMasks, "draw", lambda *arguments: {at: mask.to(CPU) for at, mask in draw(*arguments).items()})


def looks_at_the_views(patch) -> None:
    crops = preprocessing._crops_of

    def looking(mean, views, crop):
        views.tops.tolist()
        return crops(mean, views, crop)

    patch.setattr(preprocessing, "_crops_of", looking)


def copies_the_logits(patch) -> None:
    logits = TowerModel.tower_logits

    def copying(self, *arguments):
        found = logits(self, *arguments)
        found[0].detach().cpu()
        return found

    patch.setattr(TowerModel, "tower_logits", copying)


@pytest.mark.parametrize(
    ("plant", "call"),
    [
        (reads_the_loss, "__bool__"),
        (uploads_the_loss_weight, "tensor"),
        (makes_a_tensor_of_a_number_in_the_lrn, "new_tensor"),
        (moves_masks_to_the_device, "to"),
        (looks_at_the_views, "tolist"),
        (copies_the_logits, "cpu"),
    ],
)
def test_the_audit_finds_a_call_that_waits(plant, call, monkeypatch):
    plant(monkeypatch)
    banned = audit_of_a_step(monkeypatch, 4, computed=True).banned
    assert any(each.split()[0] == call for each in banned), banned


def test_the_audit_counts_kernels_of_every_image(monkeypatch):
    def image_by_image(mean, views, crop):
        return torch.stack([mean[0, : crop[0], : crop[1]] + 0 for _ in range(len(views))])

    monkeypatch.setattr(preprocessing, "_crops_of", image_by_image)
    counts = [audit_of_a_step(monkeypatch, images, PAPER).kernels for images in (4, 8)]
    assert counts[1] - counts[0] == 4


def test_the_audit_counts_updates_of_every_group(monkeypatch):
    step = PaperSGD.step

    def group_by_group(self):
        for group in (groups := self.param_groups):
            self.param_groups = [group]
            step(self)
        self.param_groups = groups

    few = audit_of_a_step(monkeypatch, 4, PAPER).operations["_fused_sgd_"]
    monkeypatch.setattr(PaperSGD, "step", group_by_group)
    assert few == 2
    assert audit_of_a_step(monkeypatch, 4, PAPER).operations["_fused_sgd_"] == 16
