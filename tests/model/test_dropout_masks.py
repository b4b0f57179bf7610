"""Dropout masks: fair, independent of one another, and the same whoever makes them."""

import hashlib
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats

from alexnet_mp.model.dropout_masks import DropoutMasks
from alexnet_mp.network.table import load_network, parse_network

CPU = torch.device("cpu")
SMALL = load_network("small")  # fc6 and fc7 have 256 units a tower


def network_with(p: float, units: int = 256):
    table = SMALL.to_mapping()
    table["layers"]["dropout6"]["p"] = p
    table["layers"]["fc6"]["units"] = units
    return parse_network(table)


def masks_of(network=SMALL, towers=(0,), seed=0, step=7, first=0, images=512):
    return DropoutMasks(network, towers, CPU).draw(seed, step, first, images)


def by_the_definition(seed: int, step: int, layer: str, tower: int, image: int, units: int) -> np.ndarray:
    """One image's mask for p = 1/2, from SplitMix64 in NumPy's unsigned integers and nothing of the library."""

    def key(*parts) -> np.uint64:
        return np.uint64(int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big"))

    def finalized(z: np.ndarray) -> np.ndarray:
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    places = (np.uint64(image << 24) + np.arange(units // 64, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    words = finalized(finalized(places + key("dropout", layer, tower)) + key(seed, "dropout", step))
    bytes_of_words = words.view(np.uint8)
    return np.concatenate([(bytes_of_words >> bit) & 1 for bit in range(8)]).astype(bool)


def test_a_mask_is_the_hash_of_its_units_places():
    masks = masks_of(towers=(0, 1), first=3, images=5)
    for (tower, layer), mask in masks.items():
        for row in range(5):
            expected = by_the_definition(0, 7, layer, tower, 3 + row, 256)
            assert np.array_equal(mask[row].numpy(), expected), (tower, layer, row)


@pytest.mark.parametrize("p", [0.5, 0.7, 0.4, 0.05])
def test_units_are_kept_with_probability_1_minus_p(p):
    # 400 images of 252 units, which is no multiple of 64: the sum of all, and of each unit over the images.
    kept = masks_of(network_with(p, units=252), images=400)[0, "dropout6"].double()
    assert kept.shape == (400, 252)
    assert stats.binomtest(int(kept.sum()), kept.numel(), 1 - p).pvalue > 1e-6
    expected = 400 * torch.tensor([[1 - p], [p]], dtype=torch.float64)
    counts = torch.stack([kept.sum(0), 400 - kept.sum(0)])
    chi_square = ((counts - expected) ** 2 / expected).sum().item()  # 252 degrees of freedom
    assert 1e-6 < stats.chi2.sf(chi_square, 252) < 1 - 1e-6


def test_masks_of_towers_layers_steps_and_seeds_images_and_units_are_independent():
    masks = {
        f"{seed} {step} {tower} {layer}": mask.double().flatten()
        for seed, step in ((0, 7), (0, 8), (1, 7))
        for (tower, layer), mask in masks_of(towers=(0, 1), seed=seed, step=step).items()
    }
    one = masks["0 7 0 dropout6"]
    masks["next image"] = one.view(512, 256).roll(1, 0).flatten()
    for shift in (1, 32, 64, 128):  # the next bit, byte or word of the hash
        masks[f"unit {shift} away"] = one.view(512, 256).roll(shift, 1).flatten()
    for (first, a), (second, b) in combinations(masks.items(), 2):
        # The correlation of 131,072 pairs of independent coins has a standard deviation of 1 / sqrt(131072).
        correlation = torch.corrcoef(torch.stack([a, b]))[0, 1].item()
        assert abs(correlation) < 5 / 131072**0.5, (first, second, correlation)


def test_a_replica_of_eight_makes_its_eighth_of_one_mask():
    whole = masks_of(towers=(0, 1), images=64)
    eighths = [masks_of(towers=(0, 1), first=8 * replica, images=8) for replica in range(8)]
    for layer, mask in whole.items():
        assert all(eighth[layer].shape == (8, 256) for eighth in eighths)
        assert torch.equal(mask, torch.cat([eighth[layer] for eighth in eighths]))


def test_masks_are_the_same_for_one_tower_alone_and_any_number_of_threads():
    both = masks_of(towers=(0, 1))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        alone = masks_of(towers=(1,)) | masks_of(towers=(0,))
    finally:
        torch.set_num_threads(threads)
    assert both.keys() == alone.keys()
    assert all(torch.equal(both[layer], alone[layer]) for layer in both)


def test_another_batch_size_changes_no_images_mask():
    model = DropoutMasks(SMALL, (0,), CPU)
    large, small = model.draw(0, 3, 0, 64), model.draw(0, 3, 0, 10)
    assert torch.equal(large[0, "dropout7"][:10], small[0, "dropout7"])
