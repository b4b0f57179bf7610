"""One forward pass for every placement: this process's towers, and the crossings to the others."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from alexnet_mp.common.device import memory_format_of_maps
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.dropout_masks import DropoutMasks
from alexnet_mp.model.stage import Logits
from alexnet_mp.model.tower import Tower
from alexnet_mp.network.crossings import crossing_points
from alexnet_mp.network.table import Network
from alexnet_mp.parallel.crossing import Crossing, Span, merge_replicated_logits, to_towers
from alexnet_mp.parallel.links import HalfPrecisionLink, Link
from alexnet_mp.parallel.placement import Placement


class TowerModel(nn.Module):
    """The towers that this process holds, and one forward function for all placements.

    Parameters are named `towers.<t>.<layer>.{own_weight, peer_weight, weight, bias}`, as in a checkpoint.
    """

    def __init__(
        self,
        network: Network,
        placement: Placement,
        link: Link | None,
        seed: int,
        dtype: torch.dtype = torch.float32,
        crossing_dtype: torch.dtype | None = None,
    ) -> None:
        """`link` carries the crossings; a network of one tower needs none.

        With a `crossing_dtype` of half precision, activations and their gradients are rounded to it on the way. Partial
        logits are not: every tower must compute its loss from the same sums.
        """
        super().__init__()
        assert link is not None or network.towers == 1, "towers without a link would never meet"
        self.network = network
        self.placement = placement
        self.link = link
        self.seed = seed
        towers = [_build_tower(network, t, seed, device, dtype) for t, device in placement.devices.items()]
        self.towers = nn.ModuleDict({str(tower.index): tower for tower in towers})
        rounded = HalfPrecisionLink(link, crossing_dtype) if link and crossing_dtype else link
        apart = len(set(placement.devices.values())) > 1
        self._crossings = [
            Crossing(point.name, rounded if point.has_backward else link, point.has_backward, apart)
            if point and link and rounded
            else None
            for point in crossing_points(network)
        ]
        self._masks = [
            DropoutMasks(network, [t for t, where in placement.devices.items() if where == device], device)
            for device in dict.fromkeys(placement.devices.values())
        ]
        self._training_forwards = 0

    def forward(self, images: Tensor, step: int | None = None) -> Tensor:
        """Images [N, channels, height, width], mean already subtracted, to logits [N, classes].

        In training mode the dropout masks are those of `step` (drawn by seed, step, layer and tower); without `step`,
        the n-th training forward of this model is step n, counted from 0. The logits lie on the first local tower's
        device.
        """
        self._check_devices()
        logits = self.tower_logits(to_towers(images, list(self.placement.devices.values())), step)
        return merge_replicated_logits(logits)

    def tower_logits(
        self, images: Sequence[Tensor], step: int | None = None, auxiliary: Logits | None = None
    ) -> list[Tensor]:
        """The full logits [N, classes] on every local tower, from the same images on each tower's device.

        Auxiliary classifiers are computed only if `auxiliary` is given; it gets their logits [N, classes] by name.
        """
        towers = self.local_towers()
        masks = self._draw_masks(len(images[0]), step)
        activations = list(images)
        for crossing, *stages in zip(self._crossings, *(tower.stages for tower in towers), strict=True):
            if crossing:
                activations, handle = crossing.start(activations)
            with crossing.span(f"own half {crossing.name} forward") if crossing else nullcontext():
                partials = [stage.own_half(own) for stage, own in zip(stages, activations, strict=True)]
            peers = crossing.finish(handle) if crossing else [None] * len(towers)
            activations = [
                stage.rest(partial, peer, mask, auxiliary)
                for stage, partial, peer, mask in zip(stages, partials, peers, masks, strict=True)
            ]
        return activations

    def _check_devices(self) -> None:
        for tower in self.local_towers():
            found, placed = next(tower.parameters()).device, self.placement.devices[tower.index]
            if found not in (placed, torch.device(placed.type)):  # real tensors on cpu:0 say cpu
                raise ConfigurationError(
                    f"tower {tower.index} was placed on {placed} and has been moved to {found}; build the model there "
                    "instead, for example build_model(..., device='cuda')"
                )

    def name_spans(self, span: Span) -> None:
        """From now on, name the start, the own half and the wait of every crossing by `span`."""
        for crossing in filter(None, self._crossings):
            crossing.span = span

    def local_towers(self) -> list[Tower]:
        """The towers of this process, in tower order."""
        return [tower for tower in self.towers.values() if isinstance(tower, Tower)]

    def _draw_masks(self, images: int, step: int | None) -> list[dict[str, Tensor]]:
        if not self.training:
            return [{} for _ in self.towers]
        if step is None:
            step = self._training_forwards
            self._training_forwards += 1
        masks: dict[tuple[int, str], Tensor] = {}
        for of_a_device in self._masks:
            masks |= of_a_device.draw(self.seed, step, self.placement.replica * images, images)
        return [
            {name: mask for (tower, name), mask in masks.items() if tower == each.index} for each in self.local_towers()
        ]


def _build_tower(network: Network, index: int, seed: int, device: torch.device, dtype: torch.dtype) -> Tower:
    with device:
        tower = Tower(network, index, seed, memory_format_of_maps(device))
    return tower if next(tower.parameters()).dtype == dtype else tower.to(dtype)
