"""The loss of every local tower, and its gradients averaged over the replicas."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from alexnet_mp.model.stage import Logits
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.rows import Auxiliary
from alexnet_mp.parallel.mesh import Mesh, needing_all


class LossOnEveryTower(nn.Module):
    """Cross-entropy, averaged over this replica's images, on each local tower from its full logits.

    Every auxiliary classifier of the network adds `loss_weight` times its cross-entropy (arXiv 1409.4842, section 5);
    validation has none of that. Every tower of a replica has the same loss; each runs its own backward pass from it, so
    no gradient of the logits has to cross.
    """

    def __init__(self, model: TowerModel, autocast: torch.dtype | None = None) -> None:
        """`autocast`: convolutions and matrix products run in this dtype, the weights stay in their own."""
        super().__init__()
        self.model = model
        self._autocast = autocast
        rows = model.network.rows
        self._loss_weights = {name: row.loss_weight for name, row in rows.items() if isinstance(row, Auxiliary)}

    def forward(self, images: Sequence[Tensor], labels: Sequence[Tensor], step: int) -> list[Tensor]:
        """`images` [n, channels, height, width] and `labels` [n] are the same for every tower, each on its device."""
        with torch.autocast(images[0].device.type, self._autocast, enabled=self._autocast is not None):
            auxiliary: Logits = {}
            logits = self.model.tower_logits(images, step, auxiliary)
            losses = [F.cross_entropy(*pair) for pair in zip(logits, labels, strict=True)]
            for name, each in auxiliary.items():  # of networks of one tower only
                losses[0] = losses[0] + self._loss_weights[name] * F.cross_entropy(each, labels[0])
            return losses


def data_parallel(
    losses: LossOnEveryTower, mesh: Mesh
) -> Callable[[Sequence[Tensor], Sequence[Tensor], int], list[Tensor]]:
    """The same function, with gradients averaged over the replicas where there are several.

    Every call then begins with replica 0's buffers, the running statistics, in all of them (DistributedDataParallel's
    default), and each replica's own images change them.
    """
    group = mesh.replica_group()
    if group is None:
        return losses
    with needing_all("the start of averaging gradients over the replicas"):
        return DistributedDataParallel(losses, process_group=group, gradient_as_bucket_view=True)


def averaging_gradients(mesh: Mesh) -> AbstractContextManager[None]:
    """With several replicas, PeerLost for what fails in a step: DistributedDataParallel raises plain RuntimeErrors.

    It communicates while gradients are computed; before every forward pass of a network that has buffers, to send them;
    and once before a forward pass to agree on its buckets of gradients.
    """
    return nullcontext() if mesh.placement.replicas == 1 else needing_all("averaging gradients over the replicas")
