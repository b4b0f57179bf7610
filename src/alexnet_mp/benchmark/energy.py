"""The energy that devices have taken."""

from collections.abc import Sequence

import torch


def energy_joules(devices: Sequence[torch.device]) -> float | None:
    """Joules that these devices have taken since some moment in the past; None where that is not known, as for CPUs."""
    return None
