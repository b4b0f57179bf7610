"""What a run is at any moment, all of which a checkpoint keeps."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.training.optimiser import PaperSGD
from alexnet_mp.training.progress import Progress
from alexnet_mp.training.schedule import LearningRates


@dataclass(frozen=True, eq=False)
class TrainingState:
    """The weights of this process's towers, their velocities, the learning rates in force, and how far the run is.

    No generator is among it: every draw is keyed by the seed and by what it is for, and none has a state.
    """

    model: TowerModel
    optimiser: PaperSGD
    rates: LearningRates
    progress: Progress

    def momentum(self) -> dict[str, Tensor]:
        """The optimiser's buffers under the names of their parameters."""
        return self.optimiser.momentum(self.parameters())

    def parameters(self) -> dict[str, Tensor]:
        """The parameters of this process's towers by name."""
        return dict(self.model.named_parameters())

    def described(self) -> dict[str, Any]:
        """All but the tensors, as plain values."""
        return {
            "progress": asdict(self.progress),
            "plateau": asdict(self.rates.state),
            "momentum_learning_rates": self.optimiser.momentum_learning_rates(),
            "generators": "keyed by the seed and what they are for; none has a state",
        }
