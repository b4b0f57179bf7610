"""Dropout as the authors had it, by a mask that the caller draws."""

from torch import Tensor, nn


class Dropout(nn.Module):
    """Zero the units where `kept` is False.

    The authors' dropout is not inverted (paper §4.2): kept values are unscaled in training, and in evaluation every
    value is multiplied by 1 - p. `inverted` is PyTorch's: kept values are divided by 1 - p in training, and
    evaluation changes nothing. The function is the same in expectation, the training is not, so it is part of the
    network table.

    The mask is an argument so that the layer is pure: recomputing or compiling it draws nothing anew.
    """

    def __init__(self, p: float, inverted: bool) -> None:
        super().__init__()
        self.p, self.inverted = p, inverted

    def forward(self, inputs: Tensor, kept: Tensor | None) -> Tensor:
        if kept is None:  # evaluation
            return inputs if self.inverted else inputs * (1 - self.p)
        return inputs * kept / (1 - self.p) if self.inverted else inputs * kept

    def extra_repr(self) -> str:
        return f"p={self.p}, inverted={self.inverted}"
