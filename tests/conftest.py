"""Fixtures that every test may use."""

from collections.abc import Callable, Iterator

import pytest
import torch

from tests.support.nvml_library import FakeGpu, FakeNvml, install, show_to_torch


@pytest.fixture
def one_thread() -> None:
    """One CPU thread, as in the worker processes: the condition under which results are promised to be bit-equal."""
    assert torch.get_num_threads() == 1


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Two CPU threads, for kernels that share their work among them."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


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
