"""Randomness is keyed, never ambient: every draw has a generator of its own, made from the seed and what it is for."""

import hashlib

import torch


def keyed_generator(seed: int, *key: int | str) -> torch.Generator:
    """A CPU generator for one purpose, for example `keyed_generator(seed, "dropout", step, layer, tower)`.

    Equal keys give equal draws on every process and placement; different keys give independent ones.
    """
    digest = hashlib.blake2b(repr((seed, *key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
