"""Whose fault a failed exchange is: another process's, or that of this process's own GPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from alexnet_mp.errors import PeerLost

# cuBLAS and cuDNN fail with plain RuntimeErrors, and NCCL with one of its own for what CUDA has told it.
_OF_CUDA = ("CUDA error", "cuDNN error", "ncclUnhandledCudaError")


def is_of_own_gpu(error: RuntimeError) -> bool:
    """True for an error of CUDA itself, out of memory among them: it says nothing of other processes."""
    known = isinstance(error, (torch.AcceleratorError, torch.OutOfMemoryError))
    return known or any(words in str(error) for words in _OF_CUDA)


@contextmanager
def failing_as_peer_lost(in_words: Callable[[RuntimeError], str], named: bool = False) -> Iterator[None]:
    """Raise PeerLost, with what `in_words` says, for RuntimeErrors: gloo and NCCL raise those for a peer that is gone.

    Errors of this process's own GPU pass as they are, and so does a PeerLost, which already says where it was missed.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, PeerLost) or is_of_own_gpu(error):
            raise
        raise PeerLost(in_words(error), named) from error
