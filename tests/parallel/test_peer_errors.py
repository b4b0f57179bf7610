"""Errors of CUDA itself pass as what they are; only what another process may have caused is a lost peer."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
import torch.distributed as dist

from alexnet_mp.errors import PeerLost
from alexnet_mp.parallel.links import ProcessLink
from alexnet_mp.parallel.mesh import Mesh, needing_all
from alexnet_mp.parallel.placement import Placement
from alexnet_mp.training.loss import averaging_gradients

OF_CUDA = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    dist.DistBackendError(
        "NCCL error in: NCCLUtils.hpp:268, unhandled cuda error\nncclUnhandledCudaError: Call failed"
    ),
]
OF_A_PEER = [
    RuntimeError("[/pytorch/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1234"),
    dist.DistBackendError("NCCL error in: NCCLUtils.hpp:268, remote process exited\nncclRemoteError: A call failed"),
]


def crossing() -> AbstractContextManager[None]:
    link = object.__new__(ProcessLink)
    link._group = None
    return link._naming("crossing conv3, forward", [])


PLACES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "a crossing": crossing,
    "a collective": lambda: needing_all("an agreement"),
    "gradients": lambda: averaging_gradients(Mesh(Placement("simulated", 2, {0: torch.device("cuda")}, 0, 2), None)),
}


@pytest.mark.parametrize("place", PLACES)
def test_an_error_of_cuda_passes_and_one_of_a_peer_is_a_lost_peer(place):
    for error in OF_CUDA:
        with pytest.raises(RuntimeError) as raised, PLACES[place]():
            raise error
        assert raised.value is error
    for error in OF_A_PEER:
        with pytest.raises(PeerLost) as lost, PLACES[place]():
            raise error
        assert lost.value.__cause__ is error and lost.value.named == (place == "a crossing")


@pytest.mark.parametrize("place", PLACES)
def test_a_lost_peer_that_is_named_keeps_its_name(place):
    named = PeerLost("crossing conv3, forward: tower 1 (rank 1) hung or is gone", named=True)
    with pytest.raises(PeerLost) as raised, PLACES[place]():
        raise named
    assert raised.value is named


def test_one_replica_averages_nothing_so_its_errors_pass():
    error = RuntimeError("shapes differ")
    with (
        pytest.raises(RuntimeError) as raised,
        averaging_gradients(Mesh(Placement("simulated", 2, {0: torch.device("cuda")}), None)),
    ):
        raise error
    assert raised.value is error
