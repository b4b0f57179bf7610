"""Keyed randomness: every draw has its own generator, made from the seed and what the draw is for."""

import hashlib

import torch


def keyed_generator(seed: int, *key: int | str) -> torch.Generator:
    """A CPU generator for one purpose, for example `keyed_generator(seed, "dropout", step, layer, tower)`.

    Equal keys give equal draws on every process and placement. The key is hashed to the 32 bits that torch's CPU
    generator takes of a seed, so two different keys share their draws once in four thousand million pairs.
    """
    digest = hashlib.blake2b(repr((seed, *key)).encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))
