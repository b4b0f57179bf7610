"""Makes a validation split from the training pictures alone, by the seed, the same part of every class."""

from dataclasses import replace

import torch

from alexnet_mp.common.rng import keyed_generator
from alexnet_mp.data.prepare.listing import Listing, Picture, in_order
from alexnet_mp.errors import ConfigurationError


def split_training_pictures(listing: Listing, part: float, seed: int) -> Listing:
    """The listing with `part` of every class's training pictures as its validation split; one at least stays.

    Raises ConfigurationError if it has a validation split already, or no class has enough pictures to give one.
    """
    if "validation" in listing.splits:
        raise ConfigurationError(f"split={part:g} makes a validation split, and the source has one; leave split out")
    pictures = listing.splits["train"]
    by_class: list[list[Picture]] = [[] for _ in listing.class_names]
    for i in torch.randperm(len(pictures), generator=keyed_generator(seed, "split")).tolist():
        by_class[pictures[i].label].append(pictures[i])
    train, validation = [], []
    for each in by_class:
        taken = min(round(part * len(each)), len(each) - 1)
        validation += each[:taken]
        train += each[taken:]
    if not validation:
        raise ConfigurationError(f"split={part:g} leaves no picture to validate on; the classes are too small for it")
    rest = {split: held for split, held in listing.splits.items() if split != "train"}
    return replace(listing, splits={"train": in_order(train), "validation": in_order(validation), **rest})
