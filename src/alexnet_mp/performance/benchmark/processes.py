"""Calls a function in new processes at the same moment, and returns what each of them hands back."""

import faulthandler
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TypeVar

_Result = TypeVar("_Result")


def results_of_processes(
    function: Callable[..., _Result], count: int, deadline_seconds: float, *arguments: object
) -> list[_Result]:
    """`function(rank, *arguments)` of so many new processes, in order of rank; all that travels must pickle.

    A process that is not done in time ends with a traceback that shows where it was. Raises BrokenProcessPool then.
    """
    stop_in_time = partial(faulthandler.dump_traceback_later, deadline_seconds, exit=True)
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), stop_in_time) as pool:
        return [future.result() for future in [pool.submit(function, rank, *arguments) for rank in range(count)]]
