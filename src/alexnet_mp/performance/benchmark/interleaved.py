"""The timing loop: calls timed in turns within one process; a layer's call; and calls in processes of their own."""

import faulthandler
import multiprocessing
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

_Key = TypeVar("_Key", bound=Hashable)
_Result = TypeVar("_Result")


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


def results_of_processes(
    function: Callable[..., _Result], count: int, deadline_seconds: float, *arguments: object
) -> list[_Result]:
    """`function(rank, *arguments)` of so many new processes, in order of rank; all that travels must pickle.

    A process that is not done in time ends with a traceback that shows where it was. Raises BrokenProcessPool then.
    """
    stop_in_time = partial(faulthandler.dump_traceback_later, deadline_seconds, exit=True)
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), stop_in_time) as pool:
        return [future.result() for future in [pool.submit(function, rank, *arguments) for rank in range(count)]]
