"""Fixtures that every test may use."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from tests.support.nvml_library import FakeGpu, FakeNvml, install, show_to_torch


@pytest.fixture
def one_thread() -> Iterator[None]:
    """See `set_one_thread`."""
    with set_one_thread():
        yield


@pytest.fixture(scope="module")
def one_thread_throughout() -> Iterator[None]:
    """The same for a module's own fixtures too."""
    with set_one_thread():
        yield


@contextmanager
def set_one_thread() -> Iterator[None]:
    """One CPU thread, as in the worker processes: the condition under which results are promised to be bit-equal."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def machine(monkeypatch) -> Iterator[Callable[..., FakeNvml]]:
    """Put a library on this machine, its GPUs visible to torch in the same order; at the end it must be closed."""
    libraries: list[FakeNvml] = []

    def put(
        *gpus: FakeGpu, visible: tuple[FakeGpu, ...] | None = None, torch_peer: bool = True, **settings
    ) -> FakeNvml:
        library = FakeNvml(*gpus, **settings)
        install(monkeypatch, library)
        show_to_torch(monkeypatch, *(visible if visible is not None else gpus), peer_access=torch_peer)
        libraries.append(library)
        return library

    yield put
    for library in libraries:
        assert not library.bugs
        assert library.users == 0, "NVML was not closed"
