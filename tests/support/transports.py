"""What carries the exchanges of a test's processes: gloo, the link through host memory, or strict NCCL."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest.mock import patch

import pytest

from alexnet_mp.parallel.mesh import make_mesh
from tests.support.processes import run_processes


def host() -> AbstractContextManager[Any]:
    """Meshes made inside go through host memory."""
    return patch.object(make_mesh, "__defaults__", ("host",))


TRANSPORTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {"gloo": nullcontext, "host": host}


def over(*fast: str) -> pytest.MarkDecorator:
    """Parametrizes a test by `transport`: those named run always, the others with `-m slow`."""
    slow = (pytest.param(name, marks=pytest.mark.slow) for name in TRANSPORTS if name not in fast)
    return pytest.mark.parametrize("transport", [*fast, *slow])


def run_over(transport: str, count: int, function: Callable[..., Any], *arguments: Any, deadline: float = 90) -> list:
    """`run_processes` with a transport."""
    return run_processes(count, _within, transport, function, *arguments, deadline=deadline)


def _within(transport: str, function: Callable[..., Any], *arguments: Any) -> Any:
    with TRANSPORTS[transport]():
        return function(*arguments)
