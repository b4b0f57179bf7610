"""Constants, power and block size that the normalizations over windows share."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """The constants of a normalization a / (k + alpha * terms)^beta.

    Over `n` adjacent maps, of which n // 2 come before, alpha multiplies the sum; over `n` x `n` positions, the mean.
    """

    n: int
    k: float
    alpha: float
    beta: float


def inverse_power(inverse_root: Tensor, beta: float, out: Tensor | None = None) -> Tensor:
    """d^-β from d^-½."""
    if beta == 0.75:  # the paper's; one more square root is quicker than a power
        return torch.sqrt(inverse_root, out=out).mul_(inverse_root)
    return torch.pow(inverse_root, 2 * beta, out=out)


def rows_in_a_block(tensor: Tensor, block_bytes: int) -> int:
    """How many rows (of dimension 0) have about `block_bytes` a CPU thread; on GPUs, which have no such cache, all."""
    if tensor.device.type != "cpu":
        return len(tensor)
    row_bytes = tensor[0].numel() * tensor.element_size()
    return min(max(torch.get_num_threads() * block_bytes // row_bytes, 1), len(tensor))
