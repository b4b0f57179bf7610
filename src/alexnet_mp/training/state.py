"""The state of a run, all of which a checkpoint keeps."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.training.lr_schedule import LearningRates
from alexnet_mp.training.optimizer import PaperSGD
from alexnet_mp.training.validation import Errors


@dataclass
class Progress:
    """`epoch` counts finished epochs, their validation included; `samples_of_epoch` are of the one after them.

    Where training is, follows from these and the seed alone: no count is of one process or of one replica.
    """

    epoch: int = 0
    samples_of_epoch: int = 0
    samples_seen: int = 0
    step: int = 0
    training_seconds: float = 0.0
    train_loss: float | None = None
    validation: Errors | None = None
    best_error: float | None = None
    best_checkpoint: str = ""
    crossing_bytes_per_step: int = 0

    def finish_epoch(self, validation: Errors, checkpoint: str) -> None:
        """Count an epoch that has been validated; `checkpoint` is the name of the one that will be saved now."""
        self.validation = validation
        self.epoch += 1
        self.samples_of_epoch = 0
        if self.best_error is None or validation.top1_error < self.best_error:
            self.best_error, self.best_checkpoint = validation.top1_error, checkpoint


@dataclass(frozen=True, eq=False)
class TrainingState:
    """The weights of this process's towers, their velocities, the learning rates in force, and how far the run is.

    No generator is among it: every draw is keyed by the seed and by what it is for, and none has a state.
    """

    model: TowerModel
    optimizer: PaperSGD
    rates: LearningRates
    progress: Progress

    def momentum(self) -> dict[str, Tensor]:
        """The optimizer's buffers under the names of their parameters."""
        return self.optimizer.momentum(self.parameters())

    def parameters(self) -> dict[str, Tensor]:
        """The parameters of this process's towers by name."""
        return dict(self.model.named_parameters())

    def described(self) -> dict[str, Any]:
        """All but the tensors, as plain values."""
        return {
            "progress": asdict(self.progress),
            "plateau": asdict(self.rates.state),
            "momentum_learning_rates": self.optimizer.momentum_learning_rates(),
            "generators": "keyed by the seed and what they are for; none has a state",
        }
