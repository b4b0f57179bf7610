"""The learning rates in force: the recipe's, changed by milestones or by a plateau of the validation error."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from alexnet_mp.training.recipe import KINDS, Kind, Recipe


@dataclass(frozen=True)
class PlateauState:
    """How often the rates were lowered, the lowest validation error, and for how many epochs there was no lower one."""

    drops: int = 0
    best_error: float | None = None
    epochs_without_improvement: int = 0


class LearningRates:
    """The learning rate of every (layer, kind), epoch by epoch."""

    def __init__(self, recipe: Recipe, layers: Sequence[str], state: PlateauState | None = None) -> None:
        """`state` is that of the run which goes on."""
        self._recipe = recipe
        self._layers = list(layers)
        self.state = state or PlateauState()

    def after(self, epochs: int) -> dict[tuple[str, Kind], float]:
        """The learning rates in force when `epochs` epochs are done; later milestones win over earlier ones."""
        plateau = self._recipe.schedule.plateau
        factor = plateau.factor**self.state.drops if plateau else 1.0
        rates = {
            (layer, kind): self._recipe.rates(layer, kind).learning_rate * factor
            for layer in self._layers
            for kind in KINDS
        }
        for milestone in self._recipe.schedule.milestones:
            if epochs >= milestone.after_epoch:
                kinds = KINDS if milestone.kind == "both" else (milestone.kind,)
                layers = milestone.layers if milestone.layers is not None else self._layers
                rates.update({(layer, kind): milestone.learning_rate for layer in layers for kind in kinds})
        return rates

    def validated(self, error: float) -> bool:
        """Take note of an epoch's validation error; True if the plateau schedule lowers the rates for it."""
        state, plateau = self.state, self._recipe.schedule.plateau
        if state.best_error is None or error < state.best_error:
            self.state = replace(state, best_error=error, epochs_without_improvement=0)
            return False
        waited = state.epochs_without_improvement + 1
        if not plateau or waited < plateau.patience or state.drops == plateau.drops:
            self.state = replace(state, epochs_without_improvement=waited)
            return False
        self.state = replace(state, drops=state.drops + 1, epochs_without_improvement=0)
        return True
