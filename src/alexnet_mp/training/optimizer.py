"""The paper's update rule, with the learning rate inside the velocity (paper §5)."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from alexnet_mp.model.layers.weighted import Weighted
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.training.recipe import Kind, Recipe


class PaperSGD(torch.optim.Optimizer):
    """v <- momentum v - decay ε w - ε g;  w <- w + v, with g averaged over the batch (paper §5).

    PyTorch's SGD keeps ε outside: b <- momentum b + decay w + g;  w <- w - ε b. With b = -v / ε the two are one as
    long as ε stays. Where it changes, the paper's velocity is carried over as it is, and PyTorch's is scaled with ε:
    after a division by ten, the paper's net coasts on at its old speed. So this optimizer runs PyTorch's kernels on
    b, and rescales b when ε changes. A group whose ε is 0 is frozen: neither its weights nor its velocity move
    (layers-145.cfg).
    """

    def __init__(self, groups: list[dict[str, Any]], momentum: float) -> None:
        """Each group has `params`, `lr` (ε) and `weight_decay`."""
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "momentum": momentum})

    @staticmethod
    def of(model: TowerModel, recipe: Recipe) -> "PaperSGD":
        """The optimizer of this process's towers, with the rates that the recipe starts with; see `make_optimizer`."""
        return make_optimizer(dict(model.towers.items()), recipe)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None, "the paper's rule evaluates the loss once"
        alike: dict[tuple[float, float, float], list[Any]] = {}  # what one call of a kernel can update
        for group in self.param_groups:
            rates = group["lr"], group["weight_decay"], group["momentum"]
            alike.setdefault(rates, []).extend(group["params"])
        for (learning_rate, weight_decay, momentum), parameters in alike.items():
            parameters = [each for each in parameters if each.grad is not None]
            if learning_rate == 0 or not parameters:
                continue
            sgd(
                parameters,
                [each.grad for each in parameters],
                [self._buffer(parameter, learning_rate) for parameter in parameters],
                fused=True,  # one pass over weights, gradients and velocities
                foreach=False,
                weight_decay=weight_decay,
                momentum=momentum,
                lr=learning_rate,
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )

    def momentum(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """PyTorch's b of each named parameter that has moved; the paper's v is -ε b, with ε as below."""
        return {name: self.state[p]["momentum_buffer"] for name, p in parameters.items() if self.state.get(p)}

    def momentum_learning_rates(self) -> dict[str, float]:
        """The ε that the b of each group is measured in, by `<layer>.<kind>`; that of a frozen one is from before."""
        return {
            f"{group['layer']}.{group['kind']}": state["learning_rate"]
            for group in self.param_groups
            if (state := self.state.get(group["params"][0]))
        }

    def restore(
        self, parameters: Mapping[str, Tensor], momentum: Mapping[str, Tensor], learning_rates: Mapping[str, float]
    ) -> None:
        """Take over what `momentum` and `momentum_learning_rates` gave; a b that is not there is 0.

        Raises KeyError if `momentum` has none of one that has moved, but has others.
        """
        names = {parameter: name for name, parameter in parameters.items()}
        for group in self.param_groups:
            learning_rate = learning_rates.get(f"{group['layer']}.{group['kind']}")
            for parameter in group["params"] if learning_rate is not None else ():
                buffer = torch.zeros_like(parameter)
                if momentum:
                    buffer.copy_(momentum[names[parameter]])
                self.state[parameter] = {"momentum_buffer": buffer, "learning_rate": learning_rate}

    def _buffer(self, parameter: Tensor, learning_rate: float) -> Tensor:
        state = self.state[parameter]
        if not state:
            state.update(momentum_buffer=torch.zeros_like(parameter), learning_rate=learning_rate)
        elif state["learning_rate"] != learning_rate:
            state["momentum_buffer"].mul_(state["learning_rate"] / learning_rate)
            state["learning_rate"] = learning_rate
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def make_optimizer(towers: Mapping[str, nn.Module], recipe: Recipe) -> PaperSGD:
    """One group for each (layer, kind) over the local towers, so that every rate can be set on its own.

    What is learned outside of a product, scale and shift of a normalization, learns at the rate of biases and never
    decays.
    """
    groups: dict[tuple[str, Kind], list[nn.Parameter]] = {}
    never_decay: set[str] = set()
    for tower in towers.values():
        for layer, module in tower.named_children():
            for name, parameter in module.named_parameters():
                kind: Kind = "biases" if name == "bias" or not isinstance(module, Weighted) else "weights"
                groups.setdefault((layer, kind), []).append(parameter)
                if not isinstance(module, Weighted):
                    never_decay.add(layer)
    return PaperSGD(
        [
            {
                "params": parameters,
                "layer": layer,
                "kind": kind,
                "lr": recipe.rates(layer, kind).learning_rate,
                "weight_decay": 0.0 if layer in never_decay else recipe.rates(layer, kind).weight_decay,
            }
            for (layer, kind), parameters in groups.items()
        ],
        recipe.momentum,
    )


def set_learning_rates(optimizer: PaperSGD, rates: Mapping[tuple[str, Kind], float]) -> None:
    """Put the rates in force into the optimizer's groups."""
    for group in optimizer.param_groups:
        group["lr"] = rates[group["layer"], group["kind"]]
