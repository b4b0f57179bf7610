"""How far a run is, and what it has measured; a checkpoint keeps all of it."""

from dataclasses import dataclass

from alexnet_mp.evaluation import Errors


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
