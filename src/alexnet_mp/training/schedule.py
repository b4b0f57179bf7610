"""The learning rates in force: the recipe's, changed by milestones or by a plateau of the validation error."""

from collections.abc import Sequence
from math import inf

from alexnet_mp.training.recipe import KINDS, Kind, Recipe


class LearningRates:
    """The learning rate of every (layer, kind), epoch by epoch."""

    def __init__(self, recipe: Recipe, layers: Sequence[str]) -> None:
        self._recipe = recipe
        self._layers = list(layers)
        self.drops = 0
        self._best_error = inf
        self._epochs_without_improvement = 0

    def after(self, epochs: int) -> dict[tuple[str, Kind], float]:
        """The learning rates in force when `epochs` epochs are done; later milestones win over earlier ones."""
        plateau = self._recipe.schedule.plateau
        factor = plateau.factor**self.drops if plateau else 1.0
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
        """Take note of an epoch's validation error; True where the plateau schedule lowers the rates for it."""
        plateau = self._recipe.schedule.plateau
        if error < self._best_error:
            self._best_error = error
            self._epochs_without_improvement = 0
            return False
        self._epochs_without_improvement += 1
        if not plateau or self._epochs_without_improvement < plateau.patience or self.drops == plateau.drops:
            return False
        self.drops += 1
        self._epochs_without_improvement = 0
        return True
