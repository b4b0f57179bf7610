"""The timing loop: calls timed in turns within one process; and the call of a layer, forward and backward."""

import sys
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

_Key = TypeVar("_Key", bound=Hashable)


def seconds_interleaved(
    calls: Mapping[_Key, Callable[[], object]],
    rounds: int,
    warmup_rounds: int = 1,
    before: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
    quiet: bool = False,
) -> dict[_Key, list[float]]:
    """The seconds of every call, round by round, after rounds to warm up; `before` each call, untimed, comes `before`.

    The first call of each compiles, and has the allocator ask the kernel for memory. `clock` may wait for a GPU.
    On a terminal a bar shows how far it is, unless it is to be `quiet`.
    """
    seconds: dict[_Key, list[float]] = {key: [] for key in calls}
    hidden = quiet or not sys.stdout.isatty()
    for number in tqdm(range(warmup_rounds + rounds), unit="round", leave=False, disable=hidden):
        for key, call in calls.items():
            before()
            started = clock()
            call()
            spent = clock() - started
            if number >= warmup_rounds:
                seconds[key].append(spent)
    return seconds


def forward_and_backward(layer: Callable[[Tensor], Tensor], inputs: Tensor, *weights: Tensor) -> Callable[[], object]:
    """A call of a layer, and of its gradients for those of `inputs` and `weights` that need one."""
    wanted = [tensor for tensor in (inputs, *weights) if tensor.requires_grad]
    gradient = torch.ones_like(layer(inputs)).detach()
    return lambda: torch.autograd.grad(layer(inputs), wanted, gradient)
